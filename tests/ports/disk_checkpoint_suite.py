"""Checkpoints and the states that others read from them."""

from __future__ import annotations

import msgspec
import pytest

from protocol.digest import digest
from tests.ports.disk_kit import (
    OTHER_RUN,
    RUN,
    MediumFactory,
    checkpoint,
    content,
    ledger,
    proof,
    stands,
    tip_of,
)


class DiskCheckpointSuite:
    """Part of `DiskSuite`."""

    async def test_empty_disk_has_nothing(self, make_medium: MediumFactory) -> None:
        disk = make_medium().open()
        assert await disk.load_checkpoint(RUN) is None
        assert await disk.load_ledger(RUN) is None
        assert await disk.load_view_records(RUN) == []
        assert await disk.load_mark(RUN) is None
        assert await disk.read_results(RUN, tip_of(1)) is None
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

    async def test_checkpoints_of_unknown_certificates_stay(
        self, make_medium: MediumFactory
    ) -> None:
        """Once a node that could not read its certificates began at genesis.

        With its first certificate it deleted what it had trained.
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
            "even before the other branch has a checkpoint"
        )
        await disk.save_checkpoint(checkpoint(5, branch=1))
        assert content(await medium.open().load_checkpoint(RUN)) == content(checkpoint(5, branch=1))
        assert await disk.read_state(tip_of(6), 0, 4) is not None, "nothing certified is deleted"
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

    async def test_saved_checkpoint_does_not_follow_later_changes(
        self, make_medium: MediumFactory
    ) -> None:
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
        """Otherwise a download that takes longer than checkpoints are kept could never finish."""
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
