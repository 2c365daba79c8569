"""What the suite of `Disk` needs: media, records, and a model of what must be read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from hypothesis import strategies as st

from protocol.ports.disk import VIEW_RECORDS_KEPT, Disk, DiskFull
from protocol.ports.disk_records import Checkpoint, LedgerRecord, SentOffer, ViewRecord
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


Operation = tuple[str, int, int]
"""A kind, a number, and a branch or a step."""
operations = st.lists(
    st.one_of(
        st.tuples(st.just("checkpoint"), st.integers(0, 6), st.integers(0, 1)),
        st.tuples(st.just("leave"), st.integers(0, 6), st.integers(0, 1)),
        st.tuples(st.just("ledger"), st.integers(1, 20), st.just(0)),
        st.tuples(st.just("certificate"), st.integers(1, 6), st.integers(0, 1)),
        st.tuples(st.just("stands"), st.integers(1, 20), st.just(0)),
        st.tuples(st.just("proof"), st.integers(1, 6), st.just(0)),
        st.tuples(st.just("cut power"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        st.tuples(st.just("fill"), st.just(0), st.just(0)),
        st.tuples(st.just("free"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class Model:
    """What must be read back after a series of operations."""

    def __init__(self) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.ledger: LedgerRecord | None = None
        self.chain: list[tuple[int, bytes]] = []
        self.view_records: list[ViewRecord] = []
        self.proofs: list[bytes] = []

    def after(self, operation: Operation) -> Model:
        what, number, branch = operation
        new = Model()
        new.checkpoints, new.ledger, new.chain, new.view_records = (
            list(self.checkpoints),
            self.ledger,
            list(self.chain),
            self.view_records,
        )
        new.proofs = list(self.proofs)
        if what == "checkpoint":
            added = checkpoint(number, branch=branch)
            others = [old for old in self.checkpoints if old.tip != added.tip]
            # Among equals the one saved last is the newest.
            new.checkpoints = sorted([*others, added], key=lambda kept: kept.number)
        elif what == "leave":
            new.checkpoints = [old for old in self.checkpoints if old.tip != tip_of(number, branch)]
        elif what == "ledger":
            new.ledger = ledger(number)
        elif what == "stands":
            new.view_records = stands(number)
        elif what == "proof" and proof(number) not in new.proofs:
            new.proofs.append(proof(number))
        elif what == "certificate":
            new.chain = [entry for entry in self.chain if entry[0] < number] + [
                (number, b"%d on %d" % (number, branch) * 3)
            ]
        return new

    async def matches(self, disk: Disk) -> bool:
        newest = content(self.checkpoints[-1]) if self.checkpoints else None
        return (
            content(await disk.load_checkpoint(RUN)) == newest
            and content(await disk.load_ledger(RUN)) == content(self.ledger)
            and await disk.load_view_records(RUN) == self.view_records
            and await disk.certificates(RUN, 0, 100) == [body for _, body in self.chain]
            and [await disk.load_proof(RUN, name) for name in await disk.proofs(RUN)] == self.proofs
        )


async def perform(disk: Disk, operation: Operation) -> None:
    what, number, branch = operation
    if what == "checkpoint":
        await disk.save_checkpoint(checkpoint(number, branch=branch))
    elif what == "leave":
        await disk.leave_checkpoints(RUN, [tip_of(number, branch)])
    elif what == "ledger":
        await disk.save_ledger(ledger(number))
    elif what == "stands":
        await disk.save_view_records(RUN, stands(number))
    elif what == "proof":
        await disk.save_proof(RUN, proof(number))
    elif what == "certificate":
        await disk.append_certificate(RUN, number, b"%d on %d" % (number, branch) * 3)


async def replay(medium: Medium, story: list[Operation]) -> None:
    disk, model, full = medium.open(), Model(), False
    for operation in story:
        what, number, _ = operation
        if what in ("checkpoint", "leave", "ledger", "certificate", "stands", "proof"):
            after = model.after(operation)
            try:
                await perform(disk, operation)
                model = after
            except DiskFull:
                assert full, "refused although there is room"
            except PowerCut:
                disk = medium.open()
                if await after.matches(disk):
                    # The record is the old or the new one, but whole.
                    model = after
        elif what == "cut power":
            medium.cut_power_at(number)
        elif what == "reopen":
            disk = medium.open()
        elif what == "fill":
            medium.fill()
            full = True
        else:
            medium.free()
            full = False
        assert await model.matches(disk), f"after {operation}"
    medium.cut_power_at(None)
    assert await model.matches(medium.open())
