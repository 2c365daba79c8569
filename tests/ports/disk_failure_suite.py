"""Power cuts, full disks and concurrent writers."""

from __future__ import annotations

import pytest
import trio
from hypothesis import HealthCheck, given, settings

from protocol.ports.disk import DiskFull
from tests.ports.disk_kit import (
    MOST_STEPS,
    RUN,
    MediumFactory,
    attempt,
    checkpoint,
    content,
    ledger,
    mark,
    results,
    save_results,
    stands,
    tip_of,
)
from tests.ports.disk_model import Model, Operation, operations, perform, replay


class DiskFailureSuite:
    """Part of `DiskSuite`."""

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
            (("mark", 1, 0), ("mark", 2, 0)),
            (("held", 1, 0), ("held", 2, 0)),
            (("results", 1, 0), ("results", 2, 0)),
            (("results", 1, 0), ("results", 1, 1)),
            (("results", 1, 0), ("results", 1, 0)),
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
                # The disk accepts writes again.
                await perform(reopened, write)
                assert await new.matches(medium.open())
                if ended:
                    break
                cuts += 1
            assert 2 <= cuts < MOST_STEPS, "the test must cut at least two steps"

    async def test_first_write_ever_may_be_cut(self, make_medium: MediumFactory) -> None:
        for write in (
            ("checkpoint", 1, 0),
            ("ledger", 1, 0),
            ("stands", 1, 0),
            ("proof", 1, 0),
            ("certificate", 1, 0),
            ("mark", 1, 0),
            ("held", 1, 0),
            ("results", 1, 0),
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

    async def test_full_disk_raises_and_keeps_its_records(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        disk = medium.open()
        model = Model()
        for operation in (
            ("checkpoint", 1, 0),
            ("ledger", 1, 0),
            ("stands", 1, 0),
            ("proof", 1, 0),
            ("certificate", 1, 0),
            ("mark", 1, 0),
            ("held", 1, 0),
            ("results", 1, 0),
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
            ("mark", 2, 0),
            ("held", 2, 0),
            ("results", 2, 0),
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
            ("mark", 2, 0),
            ("held", 2, 0),
            ("results", 2, 0),
        ):
            await perform(disk, operation)
            model = model.after(operation)
        assert await model.matches(medium.open())

    async def test_removal_of_results_may_be_cut_and_is_repeated(
        self, make_medium: MediumFactory
    ) -> None:
        """Each result is there whole or gone, and what must stay does stay."""
        for step in range(MOST_STEPS):
            medium = make_medium()
            for number in (1, 2, 3):
                await save_results(medium.open(), number)
            ended = await attempt(medium, step, lambda disk: disk.drop_results(RUN, 2))
            reopened = medium.open()
            for number in (1, 2):
                kept = await reopened.read_results(RUN, tip_of(number))
                assert kept is None or (not ended and kept == b"".join(results(number)))
            assert await reopened.read_results(RUN, tip_of(3)) == b"".join(results(3))
            await reopened.drop_results(RUN, 2)
            assert [await reopened.read_results(RUN, tip_of(number)) for number in (1, 2)] == [
                None,
                None,
            ]
            if ended:
                break

    async def test_full_disk_still_drops_results(self, make_medium: MediumFactory) -> None:
        """Dropping them is what makes room."""
        medium = make_medium()
        disk = medium.open()
        await save_results(disk, 1)
        medium.fill()
        await disk.drop_results(RUN, 1)
        assert await medium.open().read_results(RUN, tip_of(1)) is None

    async def test_writers_and_readers_at_once(self, make_medium: MediumFactory) -> None:
        """Readers see whole records, and the last record of each kind stays."""
        medium = make_medium()
        disk = medium.open()

        async def save() -> None:
            for number in range(1, 9):
                await disk.save_checkpoint(checkpoint(number))

        async def save_ledgers() -> None:
            for number in range(1, 9):
                await disk.save_ledger(ledger(number))

        async def chain() -> None:
            for number in range(1, 9):
                await disk.append_certificate(RUN, number, b"%d" % number)

        async def stand() -> None:
            for number in range(1, 9):
                await disk.save_view_records(RUN, stands(number))

        async def save_marks() -> None:
            for number in range(1, 9):
                await disk.save_mark(RUN, mark(number))

        async def keep_results() -> None:
            for number in range(1, 9):
                await save_results(disk, number)
                await disk.drop_results(RUN, number - 2)

        async def look() -> None:
            for _ in range(8):
                loaded = await disk.load_checkpoint(RUN)
                assert loaded is None or content(loaded) == content(checkpoint(loaded.number))
                found = await disk.load_ledger(RUN)
                assert found is None or content(found) == content(ledger(found.next_seq))
                where = await disk.load_view_records(RUN)
                assert where in [[], *(stands(number) for number in range(1, 9))]
                await disk.read_state(tip_of(8), 0, 100)
                assert await disk.load_mark(RUN) in [None, *map(mark, range(1, 9))]
                kept = await disk.read_results(RUN, tip_of(8))
                assert kept is None or kept == b"".join(results(8))

        async with trio.open_nursery() as nursery:
            for task in (save, save_ledgers, stand, chain, save_marks, keep_results, look, look):
                nursery.start_soon(task)
        reopened = medium.open()
        assert content(await reopened.load_checkpoint(RUN)) == content(checkpoint(8))
        assert content(await reopened.load_ledger(RUN)) == content(ledger(8))
        assert await reopened.load_view_records(RUN) == stands(8)
        assert await reopened.load_mark(RUN) == mark(8)
        for number in range(1, 9):
            kept = await reopened.read_results(RUN, tip_of(number))
            assert kept == (b"".join(results(number)) if number >= 7 else None)
        assert await reopened.certificates(RUN, 1, 100) == [
            b"%d" % number for number in range(1, 9)
        ]

    # Each disk runs the same stories every time, so that several classes can inherit the test. A
    # busy machine is not a failure either.
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(story=operations)
    def test_any_operations_read_back_as_the_model_says(
        self, make_medium: MediumFactory, story: list[Operation]
    ) -> None:
        trio.run(replay, make_medium(), story)
