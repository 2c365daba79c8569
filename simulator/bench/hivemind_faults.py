"""hivemind's part of `hypergpud bench faults`: the same faults at the same steps.

hivemind has no vote, so that step is struck at the nearest moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import trio

from protocol.errors import Unreachable
from simulator.bench.fault_record import FaultRecord
from simulator.harness.hivemind_trial import HivemindTrialResult, bench_settings, hivemind_cohort
from simulator.harness.steps import Kind, Step

MEMBERS = 4
SEED = 20
# The most that a strike waits in its step, as for the native engine.
LATE_S = 0.03
# Failed cohorts before the benchmark gives up.
FAILURES_ALLOWED = 3

VOTE_NOTE = (
    "hivemind has no vote: struck when the member holds its whole result and has not returned it "
    "to its caller"
)


async def measure_hivemind(
    root: Path,
    kinds: Sequence[Kind],
    steps: Sequence[Step],
    runs: int,
    elements: int,
    say: Callable[[str], None],
) -> list[FaultRecord]:
    """Measure all combinations, one after the other. A cohort that fails is replaced."""
    rng = random.Random(SEED)
    rest = [(kind, step, run) for kind in kinds for step in steps for run in range(runs)]
    done: dict[tuple[Kind, Step], list[HivemindTrialResult | str]] = {
        (kind, step): [] for kind in kinds for step in steps
    }
    failures = 0
    while rest and failures < FAILURES_ALLOWED:
        say(f"starting {MEMBERS} hivemind members with {elements:,} elements each")
        async with hivemind_cohort(MEMBERS, root, elements, SEED) as cohort:
            while rest:
                kind, step, run = rest[0]
                after_s = rng.uniform(0.0, LATE_S) if run // 2 % 2 else 0.0
                try:
                    trial = await cohort.strike(kind, step, after_s, victim=run % MEMBERS)
                except Unreachable as error:
                    failures += 1
                    say(f"a hivemind cohort failed: {error}")
                    done[kind, step].append(f"not measured: {error}")
                    rest.pop(0)
                    break
                done[kind, step].append(trial)
                rest.pop(0)
                say(_words(kind, step, run, trial))
        await trio.lowlevel.checkpoint()
    for kind, step, _ in rest:
        done[kind, step].append(f"not tried: {FAILURES_ALLOWED} cohorts failed before")
    return [_record(kind, step, runs, trials) for (kind, step), trials in done.items()]


def _words(kind: Kind, step: Step, run: int, trial: HivemindTrialResult) -> str:
    right = (
        "agree and exact"
        if trial.agree and trial.exact
        else "; ".join(trial.notes) or "survivors differ"
    )
    return (
        f"hivemind, {kind} in {step}, run {run + 1}: {right}; the last answer after "
        f"{trial.after_s:.1f} s"
    )


def _record(
    kind: Kind, step: Step, runs: int, trials: list[HivemindTrialResult | str]
) -> FaultRecord:
    good = [trial for trial in trials if isinstance(trial, HivemindTrialResult)]
    settings = bench_settings(SEED)
    successes = sum(trial.successes for trial in good)
    false, seen = (
        sum(trial.false_successes for trial in good),
        sum(trial.seen_false for trial in good),
    )
    survivors = len(good) * (MEMBERS - 1)
    summary = (
        f"{successes} of {survivors} survivors reported a success (sender {settings.chunk_s:g} "
        f"s, whole all-reduce {settings.all_reduce_s:g} s)"
    )
    if false:
        summary += (
            f", {false} of them falsely; in {seen} of these hivemind's own counts show a hole, "
            "and the engine rejects such a mean"
        )
    usual = median([trial.fault_free_s for trial in good]) if good else None
    return FaultRecord(
        engine="hivemind",
        kind=kind,
        step=step,
        runs=runs,
        runs_survivors_agree=sum(trial.agree for trial in good),
        runs_exact=sum(trial.exact for trial in good),
        false_successes=false,
        seconds_after_fault_median=round(median([trial.after_s for trial in good]), 3)
        if good
        else None,
        following_seconds_median=None,
        detection_seconds_median=None,
        detection_seconds_max=None,
        fault_free_seconds_median=round(usual, 3) if usual is not None else None,
        back_seconds_median=None,
        within_bound=sum(
            usual is not None and trial.exact and trial.after_s <= 2 * usual for trial in good
        ),
        leaders_struck=0,
        notes=(
            summary,
            *((VOTE_NOTE,) if step == "vote" else ()),
            *(trial for trial in trials if isinstance(trial, str)),
        ),
    )
