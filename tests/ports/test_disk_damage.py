"""What the disk of files does with damaged and unreadable files."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from daemon.disk.file_disk import FileDisk
from protocol.digest import digest
from protocol.errors import UserError
from protocol.ports.offload import inline
from tests.ports.disk_kit import (
    RUN,
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
from tests.ports.file_medium import FOLDER, checkpoints_in, everything_in, files_in


async def test_damaged_proof_is_reported_and_set_aside(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    for number in (1, 2, 3):
        await disk.save_proof(RUN, proof(number))
    folder = tmp_path / "runs" / RUN.hex() / "proofs"
    second = sorted(folder.iterdir())[1]
    second.write_bytes(proof(2)[:-1])
    reopened = FileDisk(tmp_path, inline)
    assert [await reopened.load_proof(RUN, name) for name in await reopened.proofs(RUN)] == [
        proof(1),
        None,
        proof(3),
    ]
    assert len(reopened.damaged) == 1
    assert "set aside" in reopened.damaged[0]
    assert str(second.with_suffix(".damaged")) in reopened.damaged[0]
    assert await reopened.proofs(RUN) == [digest(proof(1)), digest(proof(3))]
    assert [path.read_bytes() for path in folder.glob("*.damaged")] == [proof(2)[:-1]]
    # The proof may arrive again.
    await reopened.save_proof(RUN, proof(2))
    assert await FileDisk(tmp_path, inline).proofs(RUN) == [
        digest(proof(number)) for number in (1, 3, 2)
    ]


async def test_directory_named_like_a_proof_is_set_aside_whole(
    tmp_path: Path,
) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_proof(RUN, proof(1))
    folder = tmp_path / "runs" / RUN.hex() / "proofs"
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    (file / "other file").touch()
    reopened = FileDisk(tmp_path, inline)
    assert await reopened.load_proof(RUN, digest(proof(1))) is None
    assert "Is a directory" in reopened.damaged[0]
    assert "set aside" in reopened.damaged[0]
    assert await reopened.proofs(RUN) == []
    assert (file.with_suffix(".damaged") / "other file").exists()
    await reopened.save_proof(RUN, proof(1))
    assert await reopened.load_proof(RUN, digest(proof(1))) == proof(1)


async def test_damaged_proof_that_cannot_be_set_aside_is_reported_to_stay(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_proof(RUN, proof(1))
    (file,) = (tmp_path / "runs" / RUN.hex() / "proofs").iterdir()
    file.write_bytes(b"garbage")
    # A file cannot replace a directory.
    file.with_suffix(".damaged").mkdir()
    assert await disk.load_proof(RUN, digest(proof(1))) is None
    assert "cannot be set aside (Is a directory)" in disk.damaged[0]
    assert disk.damaged[0].endswith(str(file))


async def test_damage_is_reported_once_by_the_reader(tmp_path: Path) -> None:
    """The disk finds each kind of damage in a thread and reports it in the loop before it answers.

    The report names the file and what was done.
    """
    whole = FileDisk(tmp_path, trio.to_thread.run_sync)
    await whole.save_checkpoint(checkpoint(1))
    await whole.save_ledger(ledger(1))
    await whole.save_view_records(RUN, stands(1))
    await whole.append_certificate(RUN, 1, b"one")
    await whole.save_proof(RUN, proof(1))
    files = files_in(tmp_path)
    for path in files:
        path.write_bytes(b"garbage")
    # Where no checkpoint is whole, none is skipped.
    await whole.save_checkpoint(checkpoint(0))
    reports: list[str] = []
    loop = threading.get_ident()

    def hear(words: str) -> None:
        assert threading.get_ident() == loop
        reports.append(words)

    disk = FileDisk(tmp_path, trio.to_thread.run_sync, report=hear)
    for _ in range(3):
        assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(0))
        assert await disk.load_ledger(RUN) is None
        assert await disk.load_view_records(RUN) == []
        assert await disk.certificates(RUN, 1, 10) == []
        assert await disk.load_proof(RUN, digest(proof(1))) is None
        assert await disk.read_state(tip_of(1), 0, 10) is None
    assert len(reports) == len(files) + 1, (
        "the checkpoint twice: it can be neither loaded nor served"
    )
    assert reports == disk.damaged
    for path in files:
        place = str(path.with_suffix(".damaged")) if path.suffix == ".proof" else str(path)
        place += ".damaged" if path.name.startswith("ledger") else ""
        assert any(words.endswith(place) for words in reports), path


READS: dict[str, Callable[[FileDisk], Awaitable[object]]] = {
    "certificates": lambda disk: disk.certificates(RUN, 1, 10),
    "ledger.safetensors": lambda disk: disk.load_ledger(RUN),
    "stands": lambda disk: disk.load_view_records(RUN),
    "ledger-mark": lambda disk: disk.load_mark(RUN),
    "held": lambda disk: disk.load_held(RUN),
    "checkpoints": lambda disk: disk.load_checkpoint(RUN),
    f"checkpoints/0000000001-{tip_of(1).hex()}.safetensors": lambda disk: disk.load_checkpoint(RUN),
}


async def refused(disk: FileDisk, name: str) -> UserError:
    """Check that reading the file stops the node each time, and names a command that works."""
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            await READS[name](disk)
    assert caught.value.code == "DAMAGED"
    assert f"repair {RUN.hex()[:12]}" in caught.value.fix
    return caught.value


async def filled(root: Path) -> FileDisk:
    disk = FileDisk(root, inline)
    await disk.save_checkpoint(checkpoint(1))
    await disk.save_ledger(ledger(1))
    await disk.save_view_records(RUN, stands(1))
    await disk.append_certificate(RUN, 1, b"one")
    await disk.save_mark(RUN, mark(1))
    await disk.save_held(RUN, held(1))
    return disk


@pytest.mark.parametrize("name", READS)
async def test_unreadable_file_stops_the_node_and_is_not_overwritten(
    tmp_path: Path, name: str
) -> None:
    """A directory in place of a file, and a file in place of a directory, stop root too."""
    await filled(tmp_path)
    path = tmp_path / FOLDER / name
    path.rename(path.with_name("elsewhere"))
    if name == "checkpoints":
        path.write_bytes(b"a file")
    else:
        path.mkdir()
        (path / "kept").write_bytes(b"kept")
    before = everything_in(tmp_path)
    error = await refused(FileDisk(tmp_path, inline), name)
    assert str(path) in str(error)
    assert "directory" in str(error)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("name", READS)
@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
async def test_file_without_read_permission_stops_the_node(tmp_path: Path, name: str) -> None:
    await filled(tmp_path)
    path = tmp_path / FOLDER / name
    path.chmod(0)
    try:
        error = await refused(FileDisk(tmp_path, inline), name)
    finally:
        path.chmod(0o700)
    assert "Permission denied" in str(error)
    assert error.fix.startswith("let the user who runs this read it")
    assert await READS[name](FileDisk(tmp_path, inline)), "nothing was lost"


async def test_run_with_only_damaged_checkpoints_does_not_restart(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    for number in (1, 2):
        await disk.save_checkpoint(checkpoint(number))
    for path in checkpoints_in(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(
        UserError,
        match=r"No checkpoint of this run can be read; the newest, number 2, cannot be read",
    ) as caught:
        await FileDisk(tmp_path, inline).load_checkpoint(RUN)
    assert str(checkpoints_in(tmp_path)[-1]) in caught.value.why
    assert len(checkpoints_in(tmp_path)) == 2


@pytest.mark.parametrize("where", ["header", "metadata", "data", "tail", "empty", "longer"])
async def test_damaged_checkpoint_is_skipped_and_named(tmp_path: Path, where: str) -> None:
    disk = FileDisk(tmp_path, inline)
    for number in (1, 2):
        await disk.save_checkpoint(checkpoint(number))
    newest = checkpoints_in(tmp_path)[-1]
    whole = bytearray(newest.read_bytes())
    if where == "header":
        whole[3] ^= 0xFF
    elif where == "metadata":
        at = whole.index(b'"number":"2"') + len(b'"number":"')
        whole[at : at + 1] = b"7"
    elif where == "data":
        whole[-50] ^= 1
    elif where == "tail":
        del whole[-100:]
    elif where == "empty":
        whole.clear()
    else:
        whole += b"more"
    newest.write_bytes(whole)
    disk = FileDisk(tmp_path, inline)
    assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(1))
    assert len(disk.damaged) == 1
    assert "Checkpoint 2" in disk.damaged[0]
    await disk.load_checkpoint(RUN)
    assert len(disk.damaged) == 1, "reported once"
    await disk.save_checkpoint(checkpoint(2))
    assert content(await FileDisk(tmp_path, inline).load_checkpoint(RUN)) == content(checkpoint(2))


async def test_checkpoint_under_a_wrong_name_is_skipped(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_checkpoint(checkpoint(1))
    (path,) = checkpoints_in(tmp_path)
    path.rename(path.with_name(f"0000000099-{tip_of(99).hex()}.safetensors"))
    await disk.save_checkpoint(checkpoint(2))
    assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(2))
    assert "99" in disk.damaged[0]


@pytest.mark.parametrize("mangle", ["garbage", "half", "directory"])
async def test_damaged_mark_and_results_read_as_absent_or_as_they_are(
    tmp_path: Path, mangle: str
) -> None:
    """A damaged mark is reported. Results prove themselves to the reader, who checks them."""
    disk = FileDisk(tmp_path, inline)
    await disk.save_mark(RUN, mark(1))
    await save_results(disk, 1)
    whole = b"".join(results(1))
    record, (kept,) = tmp_path / FOLDER / "ledger-mark", (tmp_path / FOLDER / "results").iterdir()
    left = {"garbage": b"garbage", "half": whole[: len(whole) // 2]}.get(mangle)
    record.write_bytes(b"garbage" if left is None else record.read_bytes()[:1000])
    if left is None:
        kept.unlink()
        kept.mkdir()
    else:
        kept.write_bytes(left)
    reopened = FileDisk(tmp_path, inline)
    assert await reopened.load_mark(RUN) is None
    assert len(reopened.damaged) == 1
    assert reopened.damaged[0].startswith("The ledger's mark is damaged")
    assert await reopened.read_results(RUN, tip_of(1)) == left
    await reopened.save_mark(RUN, mark(2))
    await save_results(reopened, 2)
    again = FileDisk(tmp_path, inline)
    assert await again.load_mark(RUN) == mark(2)
    assert await again.read_results(RUN, tip_of(2)) == b"".join(results(2))
