"""The table of `hypergpud bench poisoning`: each attack with each number of attackers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocol.status.figures import loss as loss_text
from simulator.bench.poisoning.rounds import PoisonedRun, PoisoningCase, PoisoningRecord

MOST_LOSS = 1.1
"""A run withstands an attack if its loss stays below the honest run's times this."""


def cases(attacks: Sequence[str], attackers: int, *, unclipped: bool) -> list[PoisoningCase]:
    """The honest run, then each attack by 1 to `attackers` members.

    With `unclipped`, each attack by one member follows by the rules without weights and clip.
    """
    made = [PoisoningCase()]
    for attack in attacks:
        made += [PoisoningCase(attack=attack, attackers=count) for count in range(1, attackers + 1)]
    if unclipped:
        made += [PoisoningCase(attack=attack, attackers=1, clip=False) for attack in attacks]
    return made


def bench_poisoning(
    wanted: Sequence[PoisoningCase],
    *,
    members: int,
    rounds: int,
    steps: int,
    say: Callable[[str], None],
) -> list[PoisoningRecord]:
    """Play each case, and `say` how each one ended."""
    records = []
    for case in wanted:
        records.append(PoisonedRun(case, members, steps).play(rounds))
        say(f"{_name(case)}: loss {loss_text(records[-1].loss)}")
    return records


def withstood(records: Sequence[PoisoningRecord]) -> bool:
    """Whether every clipped run is within `MOST_LOSS` of the honest one, the first record."""
    honest = records[0].loss
    return honest is not None and all(
        record.loss is not None and record.loss <= MOST_LOSS * honest
        for record in records
        if record.case.clip
    )


def _name(case: PoisoningCase) -> str:
    if not case.attack:
        return "honest"
    how = "" if case.clip else ", rules 3"
    return f"{case.attack}, {case.attackers}{how}"


def table(records: Sequence[PoisoningRecord]) -> str:
    """The records as a table for a terminal."""
    rows: list[tuple[str, ...]] = [
        ("attack", "attackers", "rules", "loss", "weight", "kept", "honest kept")
    ]
    for record in records:
        case = record.case
        rows.append(
            (
                case.attack or "honest",
                str(case.attackers),
                "4" if case.clip else "3",
                loss_text(record.loss) if record.loss is not None else "destroyed",
                f"{record.weight_share:.0%}",
                f"{record.kept:.1e}" if case.attack and case.clip else "",
                f"{record.honest_kept:.1%}" if case.clip else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
