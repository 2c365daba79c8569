"""What the suite of `Disk` needs: media and records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from protocol.membership.finality import HELD_KEPT
from protocol.ports.disk import VIEW_RECORDS_KEPT, Disk
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    SentOffer,
    ViewRecord,
)
from simulator.fakes.medium import PowerCut

RUN, OTHER_RUN = b"r" * 32, b"o" * 32
KEPT = 3
# No write has more steps.
MOST_STEPS = 40


class Medium(Protocol):
    """The medium of a disk. It outlives the disk objects of each process."""

    def open(self) -> Disk: ...

    def cut_power_at(self, step: int | None) -> None:
        """Make the step number `step` of writing (from 0, from now) raise `PowerCut`, undone.

        None removes the cut.
        """

    def fill(self) -> None:
        """Make every further write too large."""

    def free(self) -> None:
        """Make everything fit again."""


MediumFactory = Callable[[], Medium]


def tip_of(number: int, branch: int = 0) -> bytes:
    return bytes([branch]) + number.to_bytes(31, "big")


def checkpoint(
    number: int, *, run: bytes = RUN, branch: int = 0, size: int = 100, inner: int = 7
) -> Checkpoint:
    """A checkpoint whose content follows from its number."""
    generator = np.random.Generator(np.random.PCG64([number, branch, run[0]]))
    anchor, momentum, state = (
        generator.random(length, dtype=np.float32) for length in (size, size, inner)
    )
    return Checkpoint(
        run=run,
        tip=tip_of(number, branch),
        number=number,
        anchor=anchor,
        momentum=momentum,
        inner=state,
    )


def ledger(next_seq: int, *, run: bytes = RUN, offered: bytes = b"encoded") -> LedgerRecord:
    """A ledger whose content follows from its number.

    Every third has given out two offers before. Every second has steps after its offer.
    """
    sent = tuple(
        SentOffer(
            seq=seq,
            weight=seq + 1,
            digest=bytes([seq]) * 32,
            encoded=b"%d" % seq * seq,
            factor=0.5 ** (11 - seq),
            left=seq // 2,
        )
        for seq in (9, 10)
    )
    later = next_seq % 2
    return LedgerRecord(
        run=run,
        tip=tip_of(next_seq),
        next_seq=next_seq,
        weight=next_seq * 10,
        carried=next_seq % 3,
        offered_seq=next_seq - 1,
        offered_weight=next_seq * 5,
        offered_digest=bytes([next_seq % 256]) * 32,
        offered=offered,
        residue=np.full(50, next_seq, np.float32),
        samples=next_seq * 7,
        displacement=np.full(50, 0.5 * next_seq, np.float32),
        later_samples=next_seq * later,
        later=np.full(50 * later, 0.25 * next_seq, np.float32),
        drawn=next_seq * 8,
        rounds=next_seq,
        later_rounds=later,
        sent=sent if next_seq % 3 == 0 else (),
    )


def stands(number: int) -> list[ViewRecord]:
    """View records: for a large number as many as are kept at most."""
    return [
        ViewRecord(parent=tip_of(number - i), view=number * (i + 1))
        for i in range(min(number, VIEW_RECORDS_KEPT))
    ]


def mark(next_seq: int) -> LedgerMark:
    """A ledger's mark whose content follows from its number."""
    return LedgerMark(
        tip=tip_of(next_seq),
        next_seq=next_seq,
        offered_seq=next_seq - 1,
        offered_weight=next_seq * 5,
        offered_digest=bytes([next_seq % 256]) * 32,
        pending=next_seq * 3,
        drawn=next_seq * 8,
        sent=next_seq % 2 == 1,
    )


def held(number: int) -> list[HeldCertificate]:
    """Times of adoption: for a large number as many as are kept at most."""
    return [
        HeldCertificate(certificate=tip_of(number - i), since_s=1.75e9 + number * (i + 0.1))
        for i in range(min(number, HELD_KEPT))
    ]


def results(number: int, branch: int = 0) -> list[bytes]:
    """The results of a certificate in parts of different sizes; `tip_of` names their state."""
    return [b"mean %d " % number * number, b"", b"of branch %d" % branch]


async def save_results(disk: Disk, number: int, branch: int = 0) -> None:
    await disk.save_results(RUN, number, tip_of(number, branch), results(number, branch))


def proof(number: int) -> bytes:
    """A proof whose content follows from its number."""
    return b"proof %d " % number * (number % 5 + 1)


def content(record: Checkpoint | LedgerRecord | None) -> tuple[object, ...] | None:
    """The record as a value that can be compared."""
    if record is None:
        return None
    values = (getattr(record, name) for name in record.__struct_fields__)
    return tuple(
        (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else value
        for value in values
    )


async def attempt(medium: Medium, steps: int, write: Callable[[Disk], object]) -> bool:
    """Run `write` on a disk whose power is cut before that step.

    Returns whether the write ended before the cut.
    """
    disk = medium.open()
    medium.cut_power_at(steps)
    try:
        await write(disk)  # type: ignore[misc]
    except PowerCut:
        return False
    finally:
        medium.cut_power_at(None)
    return True
