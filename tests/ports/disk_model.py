"""Random operations on a disk, and a model of what must be read back."""

from __future__ import annotations

from hypothesis import strategies as st

from protocol.ports.disk import Disk, DiskFull
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    ViewRecord,
)
from simulator.fakes.medium import PowerCut
from tests.ports.disk_kit import (
    RUN,
    Medium,
    checkpoint,
    content,
    held,
    ledger,
    mark,
    proof,
    results,
    save_results,
    stands,
    tip_of,
)

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
        st.tuples(st.just("mark"), st.integers(1, 20), st.just(0)),
        st.tuples(st.just("held"), st.integers(1, 20), st.just(0)),
        st.tuples(st.just("results"), st.integers(1, 6), st.integers(0, 1)),
        st.tuples(st.just("drop"), st.integers(0, 6), st.just(0)),
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
        self.mark: LedgerMark | None = None
        self.held: list[HeldCertificate] = []
        # (number, branch)
        self.results: set[tuple[int, int]] = set()

    def after(self, operation: Operation) -> Model:
        what, number, branch = operation
        new = Model()
        new.checkpoints, new.ledger, new.chain, new.view_records = (
            list(self.checkpoints),
            self.ledger,
            list(self.chain),
            self.view_records,
        )
        new.proofs, new.mark, new.results = list(self.proofs), self.mark, set(self.results)
        new.held = self.held
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
        elif what == "mark":
            new.mark = mark(number)
        elif what == "held":
            new.held = held(number)
        elif what == "results":
            new.results.add((number, branch))
        elif what == "drop":
            new.results = {kept for kept in self.results if kept[0] > number}
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
            and await disk.load_mark(RUN) == self.mark
            and await disk.load_held(RUN) == self.held
            and await _results_on(disk) == {kept: b"".join(results(*kept)) for kept in self.results}
        )


async def _results_on(disk: Disk) -> dict[tuple[int, int], bytes]:
    """What the disk holds of all results that an operation may save, by (number, branch)."""
    found = {
        (number, branch): await disk.read_results(RUN, tip_of(number, branch))
        for number in range(1, 7)
        for branch in (0, 1)
    }
    return {name: body for name, body in found.items() if body is not None}


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
    elif what == "mark":
        await disk.save_mark(RUN, mark(number))
    elif what == "held":
        await disk.save_held(RUN, held(number))
    elif what == "results":
        await save_results(disk, number, branch)
    elif what == "drop":
        await disk.drop_results(RUN, number)
    elif what == "certificate":
        await disk.append_certificate(RUN, number, b"%d on %d" % (number, branch) * 3)


async def replay(medium: Medium, story: list[Operation]) -> None:
    disk, model, full = medium.open(), Model(), False
    for operation in story:
        what, number, _ = operation
        if what not in ("cut power", "reopen", "fill", "free"):
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
                elif what == "drop":
                    # Each result is removed whole, and no other than those to drop.
                    after.results |= model.results & set(await _results_on(disk))
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
