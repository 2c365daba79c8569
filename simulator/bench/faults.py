"""`hypergpud bench faults`: real members, one killed or stopped in mid-round, the others audited.

Each combination of kind and step has a number of trials. The victim is a member and the view's
leader alternately. It is struck on entering the step in two trials, and somewhere in the step's
first milliseconds in the next two. One cohort serves all trials: the victim is resumed, or
restarted on its disk, and must be in a certificate again before the next trial.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec
import trio

from protocol.errors import Unreachable, UserError
from protocol.run.manifest import Manifest, RoundRules, seal
from simulator.bench.fault_record import FaultRecord
from simulator.bench.hivemind_faults import measure_hivemind
from simulator.harness.cohort import cohort_of
from simulator.harness.steps import KINDS, STEPS, Kind, Step
from simulator.harness.trial import TrialResult, TrialRunner
from simulator.harness.wire import Strike

ENGINES = ("native", "hivemind")
MEMBERS = 4
SEED = 20
# The training time of a round: time to audit earlier certificates between exchanges. All deadlines
# are the defaults.
TRAINING_S = 1.0
# The most that a strike waits in its step: a third of a step with a million elements.
LATE_S = 0.03
# Failed cohorts before the benchmark gives up.
FAILURES_ALLOWED = 3

Say = Callable[[str], None]


def check_engines(engines: Sequence[str]) -> None:
    """Raises `UserError("ENGINE")` for an unknown engine."""
    for engine in engines:
        if engine not in ENGINES:
            raise UserError(
                "ENGINE",
                f"Unknown engine {engine!r}.",
                why=f"known engines: {', '.join(ENGINES)}",
                exit_code=2,
            )


def bench_faults(
    *,
    kinds: Sequence[Kind] = KINDS,
    steps: Sequence[Step] = STEPS,
    engines: Sequence[str] = ("native",),
    runs: int = 10,
    elements: int = 1_000_000,
    say: Say,
) -> list[FaultRecord]:
    """Measure all combinations, one after the other.

    Raises:
        UserError: With code ENGINE, for an unknown engine.
    """
    check_engines(engines)
    with tempfile.TemporaryDirectory(prefix="hypergpu-faults-") as folder:
        records: list[FaultRecord] = []
        for engine in engines:
            if engine == "native":
                records += trio.run(
                    _measure, Path(folder), tuple(_planned(kinds, steps, runs)), runs, elements, say
                )
            else:
                records += trio.run(
                    measure_hivemind, Path(folder), kinds, steps, runs, elements, say
                )
        return records


class _Planned(msgspec.Struct, frozen=True):
    kind: Kind
    step: Step
    run: int


def _planned(kinds: Sequence[Kind], steps: Sequence[Step], runs: int) -> Iterator[_Planned]:
    for kind in kinds:
        for step in steps:
            for run in range(runs):
                yield _Planned(kind, step, run)


async def _measure(
    root: Path, planned: tuple[_Planned, ...], runs: int, elements: int, say: Say
) -> list[FaultRecord]:
    done: dict[tuple[Kind, Step], list[TrialResult | str]] = {
        (one.kind, one.step): [] for one in planned
    }
    rest = list(planned)
    failures = 0
    while rest and failures < FAILURES_ALLOWED:
        home = root / f"cohort-{failures}"
        home.mkdir()
        try:
            await _with_one_cohort(home, rest, done, elements, say)
        except Unreachable as error:
            failures += 1
            say(f"a cohort failed: {error}")
            with suppress(IndexError):
                one = rest.pop(0)
                done[one.kind, one.step].append(str(error).splitlines()[0])
    for one in rest:
        done[one.kind, one.step].append(f"not tried: {FAILURES_ALLOWED} cohorts failed before")
    return [_record(kind, step, runs, trials) for (kind, step), trials in done.items()]


async def _with_one_cohort(
    home: Path,
    rest: list[_Planned],
    done: dict[tuple[Kind, Step], list[TrialResult | str]],
    elements: int,
    say: Say,
) -> None:
    """Run trials, removing each from `rest` when it is done.

    Raises:
        Unreachable: When a trial does not reach its end.
    """
    rng = random.Random(SEED)
    signed = seal(
        Manifest(
            name="faults",
            task="content",
            seed=SEED,
            round=RoundRules(seconds=TRAINING_S, min_seconds=TRAINING_S),
        )
    )
    async with cohort_of(MEMBERS, home, signed, elements) as cohort:
        trials = TrialRunner(cohort, home)
        say(f"starting {MEMBERS} members with {elements:,} elements each")
        await trials.begin()
        while rest:
            one = rest[0]
            after_s = rng.uniform(0.0, LATE_S) if one.run // 2 % 2 else 0.0
            command = Strike(kind=one.kind, step=one.step, number=0, after_s=after_s)
            try:
                trial = await trials.strike(command, leader=bool(one.run % 2), pick=one.run // 2)
            except Unreachable:
                say(trials.story())
                raise
            done[one.kind, one.step].append(trial)
            rest.pop(0)
            say(_words(one, trial))


def _words(one: _Planned, trial: TrialResult) -> str:
    who = "the leader" if trial.leader else "a member"
    right = (
        "agree and exact"
        if trial.agree and trial.exact and not trial.false_successes
        else f"WRONG: {'; '.join(trial.notes)}"
    )
    return (
        f"{one.kind} in {one.step}, run {one.run + 1}: {who}, {1000 * trial.late_s:.0f} ms "
        f"into it, round {trial.number}: {right}; "
        f"certificate after {trial.after_s:.2f} s (noticed after {trial.detection_s:.2f} "
        f"s), the next after {trial.following_s:.2f} s more; "
        f"back within {trial.back_s:.1f} s"
    )


def _record(kind: Kind, step: Step, runs: int, trials: list[TrialResult | str]) -> FaultRecord:
    good = [trial for trial in trials if isinstance(trial, TrialResult)]
    notes = [trial if isinstance(trial, str) else "; ".join(trial.notes) for trial in trials]
    free = [seconds for trial in good for seconds in trial.fault_free_s]
    usual = median(free) if free else None

    def middle(values: list[float]) -> float | None:
        return round(median(values), 3) if values else None

    return FaultRecord(
        engine="native",
        kind=kind,
        step=step,
        runs=runs,
        runs_survivors_agree=sum(trial.agree for trial in good),
        runs_exact=sum(trial.exact for trial in good),
        false_successes=sum(trial.false_successes for trial in good),
        seconds_after_fault_median=middle([trial.after_s for trial in good]),
        following_seconds_median=middle([trial.following_s for trial in good]),
        detection_seconds_median=middle([trial.detection_s for trial in good]),
        detection_seconds_max=round(max(trial.detection_s for trial in good), 3) if good else None,
        fault_free_seconds_median=middle(free),
        back_seconds_median=middle([trial.back_s for trial in good]),
        within_bound=sum(
            usual is not None and trial.after_s <= 2 * usual + trial.detection_s for trial in good
        ),
        leaders_struck=sum(trial.leader for trial in good),
        notes=tuple(note for note in notes if note),
    )
