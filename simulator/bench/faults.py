"""`hypergpud bench faults`: real processes, one of them killed or stopped in mid-round, the survivors' anchors compared and made once more.

Of each combination of kind and step a number of trials: the victim is a member and the view's leader alternately, struck on entering the step in two
trials and somewhere in its first milliseconds in the next two. One cohort serves all trials: the victim is woken, or started again on its disk, and
must be in a certificate again before the next.
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
from protocol.manifest import Manifest, RoundRules, seal
from simulator.harness.cohort import cohort_of
from simulator.harness.lines import Strike
from simulator.harness.steps import KINDS, STEPS, Kind, Step
from simulator.harness.trial import Trial, Trials

ENGINES = ("native",)
MEMBERS = 4
SEED = 20
TRAINING_S = 1.0  # of a round: time to audit what was certified before, between exchanges; all deadlines are the defaults
LATE_S = 0.03  # the most that a strike waits in its step: a third of what a step takes with a million elements
FAILURES_ALLOWED = 3  # cohorts that came to nothing, before the benchmark gives up

Say = Callable[[str], None]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One combination. Seconds are medians over its trials, of the slowest survivor, training not counted.

    `seconds_after_fault_median` runs from the signal to the next certificate, `following_seconds_median` from there to the one after it;
    `within_bound` counts trials whose first certificate came within twice the fault-free exchange and the detection.
    """

    engine: str
    kind: Kind
    step: Step
    runs: int
    runs_survivors_agree: int
    runs_exact: int
    false_successes: int
    seconds_after_fault_median: float | None
    following_seconds_median: float | None
    detection_seconds_median: float | None
    fault_free_seconds_median: float | None
    back_seconds_median: float | None
    within_bound: int
    leaders_struck: int
    notes: tuple[str, ...] = ()

    @property
    def perfect(self) -> bool:
        """Whether nothing at all was wrong."""
        return self.runs_survivors_agree == self.runs and self.runs_exact == self.runs and self.false_successes == 0


def check_engines(engines: Sequence[str]) -> None:
    """Raises `UserError("ENGINE")`."""
    for engine in engines:
        if engine == "hivemind":
            raise UserError(
                "ENGINE",
                "The engine hivemind cannot be measured yet.",
                why="it comes with the data plane's engine",
                fix="hypergpud bench faults --engines native",
                exit_code=2,
            )
        if engine not in ENGINES:
            raise UserError("ENGINE", f"There is no engine {engine!r}.", why=f"this version has: {', '.join(ENGINES)}", exit_code=2)


def bench_faults(
    *,
    kinds: Sequence[Kind] = KINDS,
    steps: Sequence[Step] = STEPS,
    engines: Sequence[str] = ENGINES,
    runs: int = 10,
    elements: int = 1_000_000,
    say: Say,
) -> list[Record]:
    """All combinations, one after the other. Raises `UserError` for an engine that is not there."""
    check_engines(engines)
    with tempfile.TemporaryDirectory(prefix="hypergpu-faults-") as folder:
        return trio.run(_measure, Path(folder), tuple(_planned(kinds, steps, runs)), runs, elements, say)


class _Planned(msgspec.Struct, frozen=True):
    kind: Kind
    step: Step
    run: int


def _planned(kinds: Sequence[Kind], steps: Sequence[Step], runs: int) -> Iterator[_Planned]:
    for kind in kinds:
        for step in steps:
            for run in range(runs):
                yield _Planned(kind, step, run)


async def _measure(root: Path, planned: tuple[_Planned, ...], runs: int, elements: int, say: Say) -> list[Record]:
    done: dict[tuple[Kind, Step], list[Trial | str]] = {(one.kind, one.step): [] for one in planned}
    rest = list(planned)
    failures = 0
    while rest and failures < FAILURES_ALLOWED:
        home = root / f"cohort-{failures}"
        home.mkdir()
        try:
            await _with_one_cohort(home, rest, done, elements, say)
        except Unreachable as error:
            failures += 1
            say(f"a cohort came to nothing: {error}")
            with suppress(IndexError):
                one = rest.pop(0)
                done[one.kind, one.step].append(str(error).splitlines()[0])
    for one in rest:
        done[one.kind, one.step].append(f"not tried: {FAILURES_ALLOWED} cohorts came to nothing before")
    return [_record(kind, step, runs, trials) for (kind, step), trials in done.items()]


async def _with_one_cohort(
    home: Path, rest: list[_Planned], done: dict[tuple[Kind, Step], list[Trial | str]], elements: int, say: Say
) -> None:
    """Trials, taken off `rest` as they are done. Raises `Unreachable` when one does not come to its end."""
    rng = random.Random(SEED)
    signed = seal(Manifest(name="faults", task="content", seed=SEED, round=RoundRules(seconds=TRAINING_S)))
    async with cohort_of(MEMBERS, home, signed, elements) as cohort:
        trials = Trials(cohort, home)
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


def _words(one: _Planned, trial: Trial) -> str:
    who = "the leader" if trial.leader else "a member"
    right = "agree and exact" if trial.agree and trial.exact and not trial.false_successes else f"WRONG: {'; '.join(trial.notes)}"
    return (
        f"{one.kind} in {one.step}, run {one.run + 1}: {who}, {1000 * trial.late_s:.0f} ms into it, round {trial.number}: {right}; "
        f"certificate after {trial.after_s:.2f} s (noticed after {trial.detection_s:.2f} s), the next after {trial.following_s:.2f} s more; "
        f"back within {trial.back_s:.1f} s"
    )


def _record(kind: Kind, step: Step, runs: int, trials: list[Trial | str]) -> Record:
    good = [trial for trial in trials if isinstance(trial, Trial)]
    notes = [trial if isinstance(trial, str) else "; ".join(trial.notes) for trial in trials]
    free = [seconds for trial in good for seconds in trial.fault_free_s]
    usual = median(free) if free else None

    def middle(values: list[float]) -> float | None:
        return round(median(values), 3) if values else None

    return Record(
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
        fault_free_seconds_median=middle(free),
        back_seconds_median=middle([trial.back_s for trial in good]),
        within_bound=sum(usual is not None and trial.after_s <= 2 * usual + trial.detection_s for trial in good),
        leaders_struck=sum(trial.leader for trial in good),
        notes=tuple(note for note in notes if note),
    )


def table(records: Sequence[Record]) -> str:
    """For a terminal."""
    head = (
        "engine",
        "kind",
        "step",
        "agree",
        "exact",
        "false",
        "after s",
        "following s",
        "noticed s",
        "fault-free s",
        "back s",
        "in bound",
    )
    rows = [head]
    for record in records:
        seconds = (
            record.seconds_after_fault_median,
            record.following_seconds_median,
            record.detection_seconds_median,
            record.fault_free_seconds_median,
            record.back_seconds_median,
        )
        rows.append(
            (
                record.engine,
                record.kind,
                record.step,
                f"{record.runs_survivors_agree}/{record.runs}",
                f"{record.runs_exact}/{record.runs}",
                str(record.false_successes),
                *("-" if value is None else f"{value:.2f}" for value in seconds),
                f"{record.within_bound}/{record.runs}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{record.kind} in {record.step}: {note}" for record in records for note in record.notes)])
