"""What every `Disk` must do, whoever implements it.

The fake and the real one run exactly these tests.

A test module subclasses `DiskSuite` and gives a fixture `make_medium` whose value makes an empty
`Medium` at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.digest import digest
from protocol.ports.disk import PROOFS_BYTES, PROOFS_KEPT, VIEW_RECORDS_KEPT, Disk, DiskFull
from protocol.ports.disk_records import Checkpoint, LedgerRecord, SentOffer, ViewRecord
from simulator.fakes.medium import PowerCut

RUN, OTHER_RUN = b"r" * 32, b"o" * 32
KEPT = 3
MOST_STEPS = 40  # no write has more


class Medium(Protocol):
    """What a disk is on.

    It outlives the disk objects, which are opened as a process starts and forgotten as it dies.
    """

    def open(self) -> Disk: ...

    def cut_power_at(self, step: int | None) -> None:
        """Step number `step` (from 0) of writing, counted from now, raises `PowerCut`, and nothing
        of it happens.

        None: no cut.
        """

    def fill(self) -> None:
        """From now on no write fits."""

    def free(self) -> None:
        """Everything fits again."""


MediumFactory = Callable[[], Medium]


def tip_of(number: int, branch: int = 0) -> bytes:
    return bytes([branch]) + number.to_bytes(31, "big")


def checkpoint(
    number: int, *, run: bytes = RUN, branch: int = 0, size: int = 100, inner: int = 7
) -> Checkpoint:
    """One whose content follows from its name."""
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
    """One whose content follows from its name; every third has given out two offers before, every
    second has steps after its offer.
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
    """As many as are kept at most, sooner or later."""
    return [
        ViewRecord(parent=tip_of(number - i), view=number * (i + 1))
        for i in range(min(number, VIEW_RECORDS_KEPT))
    ]


def proof(number: int) -> bytes:
    """One whose content follows from its name."""
    return b"proof %d " % number * (number % 5 + 1)


def content(record: Checkpoint | LedgerRecord | None) -> tuple[object, ...] | None:
    """The record as something that compares."""
    if record is None:
        return None
    values = (getattr(record, name) for name in record.__struct_fields__)
    return tuple(
        (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else value
        for value in values
    )


async def attempt(medium: Medium, steps: int, write: Callable[[Disk], object]) -> bool:
    """Do `write` on a disk whose power is cut before that step; whether it ended before the cut
    came.
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
"""What, a number, and a branch or a step."""

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
    """What must be read back, as a set of possibilities for what was being written when the power
    went.
    """

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
            # Of equals the one saved last is the newest.
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
                    model = after  # old or new, but whole
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


class DiskSuite:
    """Inherit, provide `make_medium`."""

    # ---------------------------------------------------------------------------------------- checkpoints

    async def test_empty_disk_has_nothing(self, make_medium: MediumFactory) -> None:
        disk = make_medium().open()
        assert await disk.load_checkpoint(RUN) is None
        assert await disk.load_ledger(RUN) is None
        assert await disk.load_view_records(RUN) == []
        assert await disk.certificates(RUN, 0, 10) == []
        assert await disk.proofs(RUN) == []
        assert await disk.load_proof(RUN, digest(proof(1))) is None
        assert await disk.read_state(tip_of(1), 0, 10) is None

    async def test_checkpoint_comes_back_after_a_restart(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        await medium.open().save_checkpoint(checkpoint(5))
        loaded = await medium.open().load_checkpoint(RUN)
        assert content(loaded) == content(checkpoint(5))
        assert loaded is not None
        assert all(
            vector.flags.writeable for vector in (loaded.anchor, loaded.momentum, loaded.inner)
        )

    async def test_genesis_and_empty_inner_state(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        genesis = msgspec.structs.replace(checkpoint(0, inner=0), tip=RUN)
        await medium.open().save_checkpoint(genesis)
        assert content(await medium.open().load_checkpoint(RUN)) == content(genesis)

    async def test_newest_counts_and_the_last_few_are_kept(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        for number in (1, 2, 9, 10, 11):
            await disk.save_checkpoint(
                checkpoint(number), [tip_of(before) for before in range(number)]
            )
            assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(number))
        reopened = medium.open()
        assert content(await reopened.load_checkpoint(RUN)) == content(checkpoint(11))
        kept = [
            number
            for number in (1, 2, 9, 10, 11)
            if await reopened.read_state(tip_of(number), 0, 4) is not None
        ]
        assert kept == [9, 10, 11]
        assert await reopened.checkpoints(RUN) == [(number, tip_of(number)) for number in kept]

    async def test_nothing_goes_whose_certificate_is_not_known(
        self, make_medium: MediumFactory
    ) -> None:
        """A node that began at genesis, for it could not read its certificates, deleted what it had
        trained with its first certificate.
        """
        medium = make_medium()
        disk = medium.open()
        for number in (7, 8, 9):
            await disk.save_checkpoint(
                checkpoint(number), [tip_of(before) for before in range(number)]
            )
        for number in range(1, 7):
            await disk.save_checkpoint(
                checkpoint(number, branch=1), [tip_of(before, branch=1) for before in range(number)]
            )
        kept = [
            *((number, tip_of(number, branch=1)) for number in (4, 5, 6)),
            *((number, tip_of(number)) for number in (7, 8, 9)),
        ]
        assert await medium.open().checkpoints(RUN) == kept
        assert content(await medium.open().load_checkpoint(RUN)) == content(checkpoint(9))

    async def test_branch_that_was_left_does_not_come_back(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        for number in (4, 5, 6):
            await disk.save_checkpoint(checkpoint(number))
        await disk.leave_checkpoints(RUN, [tip_of(5), tip_of(6), tip_of(99)])
        assert content(await medium.open().load_checkpoint(RUN)) == content(checkpoint(4)), (
            "also before the other branch has one"
        )
        await disk.save_checkpoint(checkpoint(5, branch=1))
        assert content(await medium.open().load_checkpoint(RUN)) == content(checkpoint(5, branch=1))
        assert await disk.read_state(tip_of(6), 0, 4) is None
        await disk.save_checkpoint(checkpoint(5))
        assert content(await medium.open().load_checkpoint(RUN)) == content(checkpoint(5)), (
            "the one saved last counts"
        )

    async def test_runs_do_not_see_each_other(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        disk = medium.open()
        await disk.save_checkpoint(checkpoint(5))
        await disk.save_ledger(ledger(5))
        await disk.save_view_records(RUN, stands(3))
        await disk.append_certificate(RUN, 1, b"one")
        await disk.save_proof(RUN, proof(1))
        assert await disk.proofs(OTHER_RUN) == []
        assert await disk.load_proof(OTHER_RUN, digest(proof(1))) is None
        assert await disk.load_view_records(OTHER_RUN) == []
        assert await disk.load_checkpoint(OTHER_RUN) is None
        assert await disk.load_ledger(OTHER_RUN) is None
        assert await disk.certificates(OTHER_RUN, 0, 10) == []
        await disk.save_checkpoint(checkpoint(2, run=OTHER_RUN, branch=1))
        assert content(await medium.open().load_checkpoint(RUN)) == content(checkpoint(5))
        assert content(await medium.open().load_checkpoint(OTHER_RUN)) == content(
            checkpoint(2, run=OTHER_RUN, branch=1)
        )

    async def test_what_is_saved_is_what_it_was_then(self, make_medium: MediumFactory) -> None:
        disk = make_medium().open()
        mutable = checkpoint(1)
        await disk.save_checkpoint(mutable)
        mutable.anchor[:] = 0
        loaded = await disk.load_checkpoint(RUN)
        assert content(loaded) == content(checkpoint(1))
        assert loaded is not None
        loaded.momentum[:] = 0
        assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(1))

    async def test_an_open_state_stays_readable_when_its_checkpoint_is_removed(
        self, make_medium: MediumFactory
    ) -> None:
        """A download that takes longer than a disk keeps checkpoints could never be finished."""
        disk = make_medium().open()
        await disk.save_checkpoint(checkpoint(1))
        state = await disk.open_state(tip_of(1))
        assert state is not None
        for number in range(2, 8):
            await disk.save_checkpoint(
                checkpoint(number), [tip_of(earlier) for earlier in range(1, number)]
            )
        assert await disk.open_state(tip_of(1)) is None
        saved = checkpoint(1)
        whole = saved.anchor.astype("<f4").tobytes() + saved.momentum.astype("<f4").tobytes()
        for offset, size in ((0, 10), (399, 402), (795, 100)):
            assert await state.read(offset, size) == whole[offset : offset + size]
        await state.aclose()
        assert await disk.open_state(tip_of(9)) is None

    async def test_any_range_of_a_state_reads_as_anchor_then_momentum(
        self, make_medium: MediumFactory
    ) -> None:
        disk = make_medium().open()
        for number in (1, 2):
            await disk.save_checkpoint(checkpoint(number))
        for number in (1, 2):
            saved = checkpoint(number)
            whole = saved.anchor.astype("<f4").tobytes() + saved.momentum.astype("<f4").tobytes()
            for offset in (0, 1, 399, 400, 401, 799, 800, 10_000):
                for size in (0, 1, 3, 400, 402, 800, 10_000):
                    assert (
                        await disk.read_state(tip_of(number), offset, size)
                        == whole[offset : offset + size]
                    )
        assert await disk.read_state(tip_of(3), 0, 10) is None
        for offset, size in ((-1, 10), (0, -1)):
            with pytest.raises(ValueError, match="bytes at"):
                await disk.read_state(tip_of(1), offset, size)

    # ---------------------------------------------------------------------------------------- ledger

    async def test_ledger_comes_back_exactly(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        for record in (
            ledger(3),
            ledger(4, offered=b""),
            ledger(5, offered=bytes(range(256)) * 50),
        ):
            await medium.open().save_ledger(record)
            assert content(await medium.open().load_ledger(RUN)) == content(record)

    # ---------------------------------------------------------------------------------------- stands

    async def test_where_a_node_stood_comes_back(self, make_medium: MediumFactory) -> None:
        """However often it changes, and for as many rounds as may be kept."""
        medium = make_medium()
        disk = medium.open()
        for number in (1, 2, 30, 3, 4):
            await disk.save_view_records(RUN, stands(number))
            for opened in (disk, medium.open()):
                assert await opened.load_view_records(RUN) == stands(number)
            disk = medium.open() if number == 30 else disk
        largest = [ViewRecord(parent=bytes([255]) * 32, view=2**63 - 1)] * VIEW_RECORDS_KEPT
        await disk.save_view_records(RUN, largest)
        assert await medium.open().load_view_records(RUN) == largest

    # ---------------------------------------------------------------------------------------- certificates

    async def test_certificates_come_back_in_order(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        disk = medium.open()
        for number in range(1, 8):
            await disk.append_certificate(RUN, number, b"certificate %d" % number * number)
        for opened in (disk, medium.open()):
            assert await opened.certificates(RUN, 1, 100) == [
                b"certificate %d" % number * number for number in range(1, 8)
            ]
            assert await opened.certificates(RUN, 3, 2) == [
                b"certificate 3" * 3,
                b"certificate 4" * 4,
            ]
            assert await opened.certificates(RUN, 8, 2) == []
            assert await opened.certificates(RUN, 1, 0) == []

    async def test_appending_an_earlier_number_cuts_the_chain_back(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        for number in range(1, 6):
            await disk.append_certificate(RUN, number, b"old %d" % number)
        await disk.append_certificate(RUN, 3, b"new 3")
        expected = [b"old 1", b"old 2", b"new 3"]
        assert await disk.certificates(RUN, 1, 10) == expected
        assert await medium.open().certificates(RUN, 1, 10) == expected
        await medium.open().append_certificate(RUN, 3, b"newer 3")
        assert await medium.open().certificates(RUN, 1, 10) == [*expected[:2], b"newer 3"]

    # ---------------------------------------------------------------------------------------- proofs

    async def test_proofs_come_back_in_order_and_once(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        disk = medium.open()
        for number in (3, 1, 2, 1):
            await disk.save_proof(RUN, proof(number))
        for opened in (disk, medium.open()):
            assert await opened.proofs(RUN) == [digest(proof(number)) for number in (3, 1, 2)]
            for number in (1, 2, 3):
                assert await opened.load_proof(RUN, digest(proof(number))) == proof(number)
            assert await opened.load_proof(RUN, digest(proof(4))) is None

    async def test_only_so_many_proofs_are_kept_and_so_many_bytes(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        for number in range(PROOFS_KEPT + 3):
            await disk.save_proof(RUN, proof(number))
        kept = [digest(proof(number)) for number in range(3, PROOFS_KEPT + 3)]
        assert await disk.proofs(RUN) == kept
        assert await medium.open().proofs(RUN) == kept
        large = bytes(PROOFS_BYTES - len(proof(PROOFS_KEPT + 2)) - 1)
        await disk.save_proof(RUN, large)
        assert await disk.proofs(RUN) == [kept[-1], digest(large)]
        assert await medium.open().load_proof(RUN, digest(large)) == large
        with pytest.raises(ValueError, match="are kept"):
            await disk.save_proof(RUN, bytes(PROOFS_BYTES + 1))
        assert await disk.proofs(RUN) == [kept[-1], digest(large)]

    # ---------------------------------------------------------------------------------------- when it fails

    async def test_power_cut_at_any_step_leaves_the_old_or_the_new_record_whole(
        self, make_medium: MediumFactory
    ) -> None:
        writes: list[tuple[Operation, Operation]] = [
            (("checkpoint", 1, 0), ("checkpoint", 2, 0)),
            (("checkpoint", 1, 0), ("checkpoint", 1, 0)),
            (("ledger", 1, 0), ("ledger", 2, 0)),
            (("stands", 1, 0), ("stands", 2, 0)),
            (("proof", 1, 0), ("proof", 2, 0)),
            (("certificate", 1, 0), ("certificate", 2, 0)),
            (("certificate", 1, 0), ("certificate", 1, 1)),
        ]
        for before, write in writes:
            cuts = 0
            for step in range(MOST_STEPS):
                medium = make_medium()
                await perform(medium.open(), before)
                old = Model().after(before)
                new = old.after(write)
                ended = await attempt(medium, step, lambda disk, write=write: perform(disk, write))
                reopened = medium.open()
                assert await new.matches(reopened) or (not ended and await old.matches(reopened)), (
                    f"{write} cut at step {step}"
                )
                await perform(reopened, write)  # and the disk can be written to again
                assert await new.matches(medium.open())
                if ended:
                    break
                cuts += 1
            assert 2 <= cuts < MOST_STEPS, "a test that cuts nothing proves nothing"

    async def test_first_write_ever_may_be_cut(self, make_medium: MediumFactory) -> None:
        for write in (
            ("checkpoint", 1, 0),
            ("ledger", 1, 0),
            ("stands", 1, 0),
            ("proof", 1, 0),
            ("certificate", 1, 0),
        ):
            for step in range(MOST_STEPS):
                medium = make_medium()
                ended = await attempt(medium, step, lambda disk, write=write: perform(disk, write))
                reopened = medium.open()
                assert await Model().after(write).matches(reopened) or (
                    not ended and await Model().matches(reopened)
                )
                if ended:
                    break

    async def test_full_disk_says_so_and_keeps_what_it_has(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        model = Model()
        for operation in (
            ("checkpoint", 1, 0),
            ("ledger", 1, 0),
            ("stands", 1, 0),
            ("proof", 1, 0),
            ("certificate", 1, 0),
        ):
            await perform(disk, operation)
            model = model.after(operation)
        medium.fill()
        for operation in (
            ("checkpoint", 2, 0),
            ("ledger", 2, 0),
            ("stands", 2, 0),
            ("proof", 2, 0),
            ("certificate", 2, 0),
            ("certificate", 1, 1),
        ):
            with pytest.raises(DiskFull, match="bytes"):
                await perform(disk, operation)
            assert await model.matches(disk)
            assert await model.matches(medium.open())
        medium.free()
        for operation in (
            ("checkpoint", 2, 0),
            ("ledger", 2, 0),
            ("stands", 2, 0),
            ("proof", 2, 0),
            ("certificate", 2, 0),
        ):
            await perform(disk, operation)
            model = model.after(operation)
        assert await model.matches(medium.open())

    async def test_writers_and_readers_at_once(self, make_medium: MediumFactory) -> None:
        """Each sees whole records, and the last of each kind is what stays."""
        medium = make_medium()
        disk = medium.open()

        async def save() -> None:
            for number in range(1, 9):
                await disk.save_checkpoint(checkpoint(number))

        async def keep_books() -> None:
            for number in range(1, 9):
                await disk.save_ledger(ledger(number))

        async def chain() -> None:
            for number in range(1, 9):
                await disk.append_certificate(RUN, number, b"%d" % number)

        async def stand() -> None:
            for number in range(1, 9):
                await disk.save_view_records(RUN, stands(number))

        async def look() -> None:
            for _ in range(8):
                loaded = await disk.load_checkpoint(RUN)
                assert loaded is None or content(loaded) == content(checkpoint(loaded.number))
                books = await disk.load_ledger(RUN)
                assert books is None or content(books) == content(ledger(books.next_seq))
                where = await disk.load_view_records(RUN)
                assert where in [[], *(stands(number) for number in range(1, 9))]
                await disk.read_state(tip_of(8), 0, 100)

        async with trio.open_nursery() as nursery:
            for task in (save, keep_books, stand, chain, look, look):
                nursery.start_soon(task)
        reopened = medium.open()
        assert content(await reopened.load_checkpoint(RUN)) == content(checkpoint(8))
        assert content(await reopened.load_ledger(RUN)) == content(ledger(8))
        assert await reopened.load_view_records(RUN) == stands(8)
        assert await reopened.certificates(RUN, 1, 100) == [
            b"%d" % number for number in range(1, 9)
        ]

    # Each disk runs the same stories every time, so that several classes may inherit the test; a
    # busy machine is no failure either.
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(story=operations)
    def test_any_story_reads_back_as_the_model_says(
        self, make_medium: MediumFactory, story: list[Operation]
    ) -> None:
        trio.run(replay, make_medium(), story)
