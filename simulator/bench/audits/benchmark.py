"""The table of `hypergpud bench audits`: scores and verdicts of each kind of work in each case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import numpy as np

from daemon.device.processor import Device
from protocol.audit.score import AUDITS
from simulator.bench.audits.cases import AuditCase
from simulator.bench.audits.members import SETTINGS
from simulator.bench.audits.swarm import Audit, Swarm
from simulator.bench.audits.works import HONEST, POISON


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """The audits of one kind of work in one case.

    `favoured` and `against` are the shares of the audits after which the verdict stood for the
    contributor, and against it. `found_in` is the most audits until a first verdict against one of
    the members; 0 where a member got none.
    """

    case: str
    kind: str
    audits: int
    mean: float
    lowest: float
    favoured: float
    against: float
    found_in: int


def measure(
    cases: Sequence[AuditCase], kinds: Sequence[str], say: Callable[[str], None]
) -> list[AuditRow]:
    """Play each case, and return a row for each kind of work in it."""
    # One thread, as in a worker: idle threads of torch would spin. A second call changes nothing.
    device = Device(SETTINGS)
    with suppress(RuntimeError):
        device.claim()
    device.enter_thread()
    rows: list[AuditRow] = []
    for case in cases:
        say(f"{case.name}: {case.rounds} rounds of {len(case.speeds)} members")
        swarm = Swarm(case)
        found = [audit for _ in range(case.rounds) for audit in swarm.round(kinds)]
        for kind in (*kinds, POISON):
            audits = [audit for audit in found if audit.kind == kind]
            if audits:
                rows.append(_row(case.name, kind, audits))
    return rows


def against_honest(rows: Sequence[AuditRow]) -> tuple[int, int]:
    """Return the audits after which the verdict stood against honest work, and all of honest work.

    The first verdict against a member counts as often as it stands.
    """
    honest = [row for row in rows if row.kind == HONEST]
    return sum(round(row.against * row.audits) for row in honest), sum(row.audits for row in honest)


def table(rows: Sequence[AuditRow]) -> str:
    """Return the rows for a person."""
    lines = [
        f"{'case':<26} {'work':<8} {'audits':>6} {'mean':>5} {'least':>5} {'for':>7} {'against':>8}"
        f" {'found in':>8}"
    ]
    lines += [
        f"{row.case:<26} {row.kind:<8} {row.audits:>6} {row.mean:>5.2f} {row.lowest:>5.2f}"
        f" {row.favoured:>7.1%} {row.against:>8.1%} {row.found_in or '-':>8}"
        for row in rows
    ]
    wrong, audits = against_honest(rows)
    if audits:
        lines.append(f"verdicts against honest work: {wrong} of {audits} audits")
    return "\n".join(lines)


def _row(case: str, kind: str, audits: Sequence[Audit]) -> AuditRow:
    scores = np.array([audit.score for audit in audits])
    return AuditRow(
        case=case,
        kind=kind,
        audits=len(audits),
        mean=float(scores.mean()),
        lowest=float(scores.min()),
        favoured=sum(audit.favours is True for audit in audits) / len(audits),
        against=sum(audit.favours is False for audit in audits) / len(audits),
        found_in=_found_in(audits),
    )


def _found_in(audits: Sequence[Audit]) -> int:
    """Return the most audits until a member's first verdict, if that is against each of them."""
    taken: list[int] = []
    for member in {audit.member for audit in audits}:
        mine = [audit.favours for audit in audits if audit.member == member]
        if len(mine) < AUDITS:
            continue
        if False not in mine:
            return 0
        taken.append(mine.index(False) + 1)
    return max(taken, default=0)
