"""Ledger, view records, certificates and proofs."""

from __future__ import annotations

import pytest

from protocol.digest import digest
from protocol.ports.disk import PROOFS_BYTES, PROOFS_KEPT, VIEW_RECORDS_KEPT
from protocol.ports.disk_records import ViewRecord
from tests.ports.disk_kit import (
    OTHER_RUN,
    RUN,
    MediumFactory,
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


class DiskRecordSuite:
    """Part of `DiskSuite`."""

    async def test_ledger_comes_back_exactly(self, make_medium: MediumFactory) -> None:
        medium = make_medium()
        for record in (
            ledger(3),
            ledger(4, offered=b""),
            ledger(5, offered=bytes(range(256)) * 50),
        ):
            await medium.open().save_ledger(record)
            assert content(await medium.open().load_ledger(RUN)) == content(record)

    async def test_view_records_come_back(self, make_medium: MediumFactory) -> None:
        """They come back after any number of changes, and for as many rounds as are kept."""
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

    async def test_mark_comes_back(self, make_medium: MediumFactory) -> None:
        """It is a record of its own: a ledger that is saved later leaves it."""
        medium = make_medium()
        disk = medium.open()
        assert await disk.load_mark(RUN) is None
        for number in (3, 4, 2, 200, 5):
            await disk.save_mark(RUN, mark(number))
            for opened in (disk, medium.open()):
                assert await opened.load_mark(RUN) == mark(number)
            disk = medium.open() if number == 2 else disk
        await disk.save_ledger(ledger(6))
        await disk.save_view_records(RUN, stands(2))
        assert await medium.open().load_mark(RUN) == mark(5)
        assert await disk.load_mark(OTHER_RUN) is None

    async def test_times_of_adoption_come_back(self, make_medium: MediumFactory) -> None:
        """They come back after any number of changes, also as many as are kept at most."""
        medium = make_medium()
        disk = medium.open()
        assert await disk.load_held(RUN) == []
        for number in (1, 2, 200, 3):
            await disk.save_held(RUN, held(number))
            for opened in (disk, medium.open()):
                assert await opened.load_held(RUN) == held(number)
        await disk.save_view_records(RUN, stands(2))
        assert await medium.open().load_held(RUN) == held(3)
        assert await disk.load_held(OTHER_RUN) == []

    async def test_results_come_back_whole_and_in_any_range(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        assert await disk.read_results(RUN, tip_of(1)) is None
        for number, branch in ((3, 0), (4, 0), (3, 1)):
            await save_results(disk, number, branch)
        for opened in (disk, medium.open()):
            for number, branch in ((3, 0), (4, 0), (3, 1)):
                whole = b"".join(results(number, branch))
                state = tip_of(number, branch)
                assert await opened.read_results(RUN, state) == whole
                for offset in (0, 1, len(whole) - 1, len(whole), len(whole) + 5):
                    assert await opened.read_results(RUN, state, offset) == whole[offset:]
                    for size in (0, 1, 10, 10_000):
                        read = await opened.read_results(RUN, state, offset, size)
                        assert read == whole[offset : offset + size]
            assert await opened.read_results(OTHER_RUN, tip_of(3)) is None
            assert await opened.read_results(RUN, tip_of(5)) is None

    async def test_only_results_up_to_a_number_are_dropped(
        self, make_medium: MediumFactory
    ) -> None:
        medium = make_medium()
        disk = medium.open()
        await disk.drop_results(RUN, 9)
        for number in (2, 10, 9, 11):
            await save_results(disk, number)
        await disk.save_results(OTHER_RUN, 2, tip_of(2), results(2))
        await disk.drop_results(RUN, 9)
        for opened in (disk, medium.open()):
            for number in (2, 9):
                assert await opened.read_results(RUN, tip_of(number)) is None
            for number in (10, 11):
                assert await opened.read_results(RUN, tip_of(number)) == b"".join(results(number))
            assert await opened.read_results(OTHER_RUN, tip_of(2)) == b"".join(results(2))

    async def test_written_bytes_count_results_and_marks(self, make_medium: MediumFactory) -> None:
        disk = make_medium().open()
        await save_results(disk, 6)
        size = len(b"".join(results(6)))
        assert disk.written_bytes == size
        await disk.save_mark(RUN, mark(1))
        assert size < disk.written_bytes <= size + 2 * 4096

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
