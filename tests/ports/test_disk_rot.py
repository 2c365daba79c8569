"""What the disk of files does with a damaged ledger, damaged view records and a damaged chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.disk.file_disk import FileDisk
from daemon.disk.slots_file import SLOT_BYTES
from daemon.disk.tensors import encode
from protocol.errors import UserError
from protocol.ports.offload import inline
from tests.ports.disk_kit import (
    RUN,
    content,
    ledger,
    stands,
    tip_of,
)


async def test_damaged_ledger_is_none_and_named(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_ledger(ledger(4))
    path = tmp_path / "runs" / RUN.hex() / "ledger.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    for number in (1, 2):
        path.write_bytes(whole)
        assert await disk.load_ledger(RUN) is None
        assert "ledger" in disk.damaged[-1]
        aside = path.with_name("ledger.safetensors.damaged" + ("-2" if number == 2 else ""))
        assert aside.read_bytes() == whole, "set aside, and not over the last one"
        assert not path.exists()
        await disk.save_ledger(ledger(5))
        assert content(await disk.load_ledger(RUN)) == content(ledger(5))


async def test_ledger_of_another_version_is_named_and_stays(tmp_path: Path) -> None:
    """The ledger holds work: it must be neither treated as damaged nor overwritten."""
    path = tmp_path / "runs" / RUN.hex() / "ledger.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(
        b"".join(
            encode(
                {"residue": np.ones(5, np.float32)},
                {"format": "hypergpu/ledger/1", "run": RUN.hex()},
            )
        )
    )
    before = path.read_bytes()
    with pytest.raises(UserError, match="Another version") as refused:
        await FileDisk(tmp_path, inline).load_ledger(RUN)
    assert str(path) in str(refused.value)
    assert "format 1" in refused.value.why
    assert "--home" in refused.value.fix
    assert path.read_bytes() == before


async def test_view_records_are_overwritten_in_place_and_the_last_but_one_stays(
    tmp_path: Path,
) -> None:
    """The file does not grow, and a torn or damaged slot leaves the other one.

    The loss of both is reported.
    """
    disk = FileDisk(tmp_path, inline)
    path = tmp_path / "runs" / RUN.hex() / "stands"
    for number in range(1, 6):
        await disk.save_view_records(RUN, stands(number))
        assert path.stat().st_size == 2 * SLOT_BYTES
    whole = path.read_bytes()
    newest = whole.index(tip_of(5))
    for harm in (newest, newest - 1, newest // SLOT_BYTES * SLOT_BYTES):
        path.write_bytes(whole[:harm] + bytes([whole[harm] ^ 1]) + whole[harm + 1 :])
        damaged = FileDisk(tmp_path, inline)
        assert await damaged.load_view_records(RUN) == stands(4)
        await damaged.save_view_records(RUN, stands(6))
        assert await FileDisk(tmp_path, inline).load_view_records(RUN) == stands(6)
    for ruin in (b"", whole[:100], bytes(len(whole))):
        path.write_bytes(ruin)
        lost = FileDisk(tmp_path, inline)
        assert await lost.load_view_records(RUN) == []
        assert "stands" in lost.damaged[0]
        await lost.save_view_records(RUN, stands(7))
        await lost.save_view_records(RUN, stands(8))
        assert await FileDisk(tmp_path, inline).load_view_records(RUN) == stands(8)
    path.unlink()
    # A directory cannot be read as a file.
    path.mkdir()
    unreadable = FileDisk(tmp_path, inline)
    for use in (unreadable.load_view_records(RUN), unreadable.save_view_records(RUN, stands(9))):
        with pytest.raises(UserError, match="cannot be read"):
            await use


async def test_torn_tail_of_the_chain_reads_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    for number in range(1, 5):
        await disk.append_certificate(RUN, number, b"certificate %d" % number)
    path = tmp_path / "runs" / RUN.hex() / "certificates"
    whole = path.read_bytes()
    record = len(whole) // 4
    for cut in range(1, record + 1):
        path.write_bytes(whole[:-cut])
        torn = FileDisk(tmp_path, inline)
        assert await torn.certificates(RUN, 1, 10) == [
            b"certificate %d" % number for number in range(1, 4)
        ]
        assert bool(torn.damaged) == (cut < record)
        await torn.append_certificate(RUN, 4, b"certificate 4")
        assert path.read_bytes() == whole, "the next record overwrites the torn one"


@pytest.mark.parametrize("kind", ["body", "digest", "number", "last body", "noise behind the last"])
async def test_damaged_certificate_stops_the_next_start_and_stays(
    tmp_path: Path, kind: str
) -> None:
    """An unreadable record is not overwritten. A running node serves the records before it."""
    disk = FileDisk(tmp_path, inline)
    for number in range(1, 5):
        await disk.append_certificate(RUN, number, b"certificate %d" % number)
    path = tmp_path / "runs" / RUN.hex() / "certificates"
    whole = bytearray(path.read_bytes())
    record = len(whole) // 4
    start = {"last body": 3 * record, "noise behind the last": 4 * record}.get(kind, 2 * record)
    if kind == "noise behind the last":
        whole += b"\1\0\0\0" + bytes(range(60))
    else:
        whole[start + {"digest": 20, "number": 5}.get(kind, record - 1)] ^= 1
    path.write_bytes(whole)
    if kind != "noise behind the last":
        good = start // record
        assert await disk.certificates(RUN, 1, 10) == [
            b"certificate %d" % number for number in range(1, good + 1)
        ]
        assert f"Certificate {good + 1} does not match its digest" in disk.damaged[0]
    opened = FileDisk(tmp_path, inline)
    for use in (opened.certificates(RUN, 1, 10), opened.append_certificate(RUN, 5, b"five")):
        with pytest.raises(UserError) as caught:
            await use
        assert caught.value.code == "DAMAGED"
        assert (
            f"the record behind number {start // record}, at byte {start} of {len(whole)}, "
            "does not match its digest" in caught.value.what
        )
        assert caught.value.why == str(path)
    assert path.read_bytes() == whole
