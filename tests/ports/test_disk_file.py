"""The disk of files passes the suite of `Disk`, and keeps its word about files, damage, real full
media and kill -9.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import trio

from daemon.disk.atomic import DRAFT_PREFIX, free_bytes, write_atomically
from daemon.disk.chain_file import MOST_WASTE_BYTES
from daemon.disk.file_disk import FileDisk
from daemon.disk.slots_file import SLOT_BYTES
from daemon.disk.tensors import encode
from protocol.digest import digest
from protocol.errors import UserError
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.offload import Offload, inline
from simulator.fakes.medium import PowerCut
from tests.ports.disk_suite import (
    KEPT,
    RUN,
    DiskSuite,
    MediumFactory,
    checkpoint,
    content,
    ledger,
    proof,
    stands,
    tip_of,
)


class OnFiles:
    def __init__(self, root: Path, offload: Offload = inline) -> None:
        self.root = root
        self._offload = offload
        self._cut_at: int | None = None
        self._full = False

    def open(self) -> Disk:
        return FileDisk(self.root, self._offload, KEPT, fault=self._step)

    def cut_power_at(self, step: int | None) -> None:
        self._cut_at = step

    def fill(self) -> None:
        self._full = True

    def free(self) -> None:
        self._full = False

    def _step(self, step: str) -> None:
        if self._full and step in ("write", "append"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._cut_at is not None:
            self._cut_at -= 1
            if self._cut_at < 0:
                self._cut_at = None
                raise PowerCut


@pytest.fixture
def numbered(tmp_path: Path) -> Iterator[Path]:
    """Empty directories."""
    return (tmp_path / str(number) for number in range(10_000))


class TestFileDisk(DiskSuite):
    @pytest.fixture
    def make_medium(self, numbered: Iterator[Path]) -> MediumFactory:
        return lambda: OnFiles(next(numbered))


class TestFileDiskInThreads(DiskSuite):
    """As a real node uses it."""

    @pytest.fixture
    def make_medium(self, numbered: Iterator[Path]) -> MediumFactory:
        return lambda: OnFiles(next(numbered), trio.to_thread.run_sync)


def checkpoints_in(root: Path) -> list[Path]:
    return sorted((root / "runs" / RUN.hex() / "checkpoints").iterdir())


def files_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_a_damaged_proof_is_said_and_set_aside_and_the_others_stay(tmp_path: Path) -> None:
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
    await reopened.save_proof(RUN, proof(2))  # and it may come again
    assert await FileDisk(tmp_path, inline).proofs(RUN) == [
        digest(proof(number)) for number in (1, 3, 2)
    ]


async def test_a_directory_that_is_named_like_a_proof_is_set_aside_with_what_is_in_it(
    tmp_path: Path,
) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_proof(RUN, proof(1))
    folder = tmp_path / "runs" / RUN.hex() / "proofs"
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    (file / "of somebody").touch()
    reopened = FileDisk(tmp_path, inline)
    assert await reopened.load_proof(RUN, digest(proof(1))) is None
    assert "Is a directory" in reopened.damaged[0]
    assert "set aside" in reopened.damaged[0]
    assert await reopened.proofs(RUN) == []
    assert (file.with_suffix(".damaged") / "of somebody").exists()
    await reopened.save_proof(RUN, proof(1))
    assert await reopened.load_proof(RUN, digest(proof(1))) == proof(1)


async def test_a_damaged_proof_that_cannot_be_set_aside_is_said_to_stay(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_proof(RUN, proof(1))
    (file,) = (tmp_path / "runs" / RUN.hex() / "proofs").iterdir()
    file.write_bytes(b"garbage")
    file.with_suffix(".damaged").mkdir()  # a file cannot take a directory's name
    assert await disk.load_proof(RUN, digest(proof(1))) is None
    assert "cannot be set aside (Is a directory)" in disk.damaged[0]
    assert disk.damaged[0].endswith(str(file))


# -------------------------------------------------------------------------------------------------- the files


async def test_checkpoint_is_a_safetensors_file_that_others_can_read(tmp_path: Path) -> None:
    saved = checkpoint(12)
    await FileDisk(tmp_path, inline).save_checkpoint(saved)
    (path,) = checkpoints_in(tmp_path)
    assert path.name == f"0000000012-{saved.tip.hex()}.safetensors"
    with safetensors.numpy.safe_open(path, framework="np") as file:
        metadata = file.metadata()
        assert (metadata["run"], metadata["tip"], metadata["number"]) == (
            RUN.hex(),
            saved.tip.hex(),
            "12",
        )
        for name in ("anchor", "momentum", "inner"):
            np.testing.assert_array_equal(file.get_tensor(name), getattr(saved, name))


async def test_everything_is_private(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path / "home", inline)
    before = os.umask(0)
    try:
        await disk.save_checkpoint(checkpoint(1))
        await disk.save_ledger(ledger(1))
        await disk.save_view_records(RUN, stands(1))
        await disk.append_certificate(RUN, 1, b"one")
        await disk.save_proof(RUN, proof(1))
    finally:
        os.umask(before)
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "home").rglob("*")
        if path.is_file()
    }
    assert modes == {0o600}
    assert {
        stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "home").rglob("*")
        if path.is_dir()
    } == {0o700}


async def test_drafts_of_a_dead_process_go_with_the_first_write_and_not_by_reading(
    tmp_path: Path,
) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_checkpoint(checkpoint(1))
    draft = checkpoints_in(tmp_path)[0].with_name(DRAFT_PREFIX + "something")
    draft.write_bytes(b"half")
    reader = FileDisk(tmp_path, inline)
    assert content(await reader.load_checkpoint(RUN)) == content(checkpoint(1))
    assert draft.exists()
    await FileDisk(tmp_path, inline).save_ledger(ledger(1))
    assert not draft.exists()


async def test_a_checkpoint_that_is_being_written_is_given_to_nobody(tmp_path: Path) -> None:
    """A draft ends as its checkpoint does.

    A member that downloaded from it got too few bytes, and asked that node no more.
    """
    disk = FileDisk(tmp_path, inline)
    await disk.save_checkpoint(checkpoint(1))
    whole = next((tmp_path / FOLDER / "checkpoints").glob("*.safetensors"))
    whole.rename(whole.with_name(".draft-" + whole.name))
    assert await disk.read_state(tip_of(1), 0, 10) is None
    assert await disk.open_state(tip_of(1)) is None


async def test_refused_write_leaves_no_draft(tmp_path: Path) -> None:
    medium = OnFiles(tmp_path)
    medium.fill()
    with pytest.raises(DiskFull) as caught:
        await medium.open().save_checkpoint(checkpoint(1))
    assert checkpoints_in(tmp_path) == []
    for words in (str(tmp_path), "needs", "free", "No space left"):
        assert words in str(caught.value)


# -------------------------------------------------------------------------------------------------- damage


async def test_what_is_damaged_is_told_once_and_by_whoever_asked(tmp_path: Path) -> None:
    """Each kind of file, found damaged in a thread, is told in the loop before the answer: which
    file, what was done.
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
    await whole.save_checkpoint(checkpoint(0))  # where none is whole, none is passed over
    told: list[str] = []
    loop = threading.get_ident()

    def hear(words: str) -> None:
        assert threading.get_ident() == loop
        told.append(words)

    disk = FileDisk(tmp_path, trio.to_thread.run_sync, report=hear)
    for _ in range(3):
        assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(0))
        assert await disk.load_ledger(RUN) is None
        assert await disk.load_view_records(RUN) == []
        assert await disk.certificates(RUN, 1, 10) == []
        assert await disk.load_proof(RUN, digest(proof(1))) is None
        assert await disk.read_state(tip_of(1), 0, 10) is None
    assert len(told) == len(files) + 1, (
        "the checkpoint twice: it cannot be taken up, and it cannot be handed out"
    )
    assert told == disk.damaged
    for path in files:
        place = str(path.with_suffix(".damaged")) if path.suffix == ".proof" else str(path)
        place += ".damaged" if path.name.startswith("ledger") else ""
        assert any(words.endswith(place) for words in told), path


FOLDER = f"runs/{RUN.hex()}"
READS: dict[str, Callable[[FileDisk], Awaitable[object]]] = {
    "certificates": lambda disk: disk.certificates(RUN, 1, 10),
    "ledger.safetensors": lambda disk: disk.load_ledger(RUN),
    "stands": lambda disk: disk.load_view_records(RUN),
    "checkpoints": lambda disk: disk.load_checkpoint(RUN),
    f"checkpoints/0000000001-{tip_of(1).hex()}.safetensors": lambda disk: disk.load_checkpoint(RUN),
}


async def refused(disk: FileDisk, name: str) -> UserError:
    """Reading it stops the node, again and again, with a command that works."""
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
    return disk


def everything_in(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", READS)
async def test_what_the_system_does_not_give_stops_the_node_and_is_not_written_over(
    tmp_path: Path, name: str
) -> None:
    """A folder in the place of a file, and a file in the place of a folder, are refused to root as
    well.
    """
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
async def test_what_its_owner_may_not_read_stops_the_node(tmp_path: Path, name: str) -> None:
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


async def test_a_run_whose_every_checkpoint_is_damaged_does_not_begin_anew(tmp_path: Path) -> None:
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


async def test_of_branches_that_were_left_the_last_few_are_kept_apart(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    for number in range(1, 6):
        await disk.save_checkpoint(checkpoint(number))
        await disk.leave_checkpoints(RUN, [tip_of(number)])
    assert [path.name for path in checkpoints_in(tmp_path)] == ["left"]
    left = sorted((tmp_path / FOLDER / "checkpoints" / "left").iterdir())
    assert [int(path.name[:10]) for path in left] == [3, 4, 5]
    assert await FileDisk(tmp_path, inline).load_checkpoint(RUN) is None


@pytest.mark.parametrize("where", ["header", "metadata", "data", "tail", "empty", "longer"])
async def test_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, where: str) -> None:
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
    assert len(disk.damaged) == 1, "said once"
    await disk.save_checkpoint(checkpoint(2))
    assert content(await FileDisk(tmp_path, inline).load_checkpoint(RUN)) == content(checkpoint(2))


async def test_checkpoint_under_a_wrong_name_is_passed_over(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    await disk.save_checkpoint(checkpoint(1))
    (path,) = checkpoints_in(tmp_path)
    path.rename(path.with_name(f"0000000099-{tip_of(99).hex()}.safetensors"))
    await disk.save_checkpoint(checkpoint(2))
    assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(2))
    assert "99" in disk.damaged[0]


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


async def test_a_ledger_of_another_version_is_named_and_stays(tmp_path: Path) -> None:
    """What waits in it is somebody's work: it is neither taken for damaged nor written over."""
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


async def test_where_a_node_stood_is_overwritten_in_place_and_the_last_but_one_stays(
    tmp_path: Path,
) -> None:
    """The file does not grow; a torn or rotten slot leaves the other; and when both are gone that
    is said.
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
    path.mkdir()  # a file that cannot be read
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
        assert path.read_bytes() == whole, "the next one is written over the torn one"


@pytest.mark.parametrize("kind", ["body", "digest", "number", "last body", "noise behind the last"])
async def test_certificate_that_rots_stops_the_next_start_and_stays(
    tmp_path: Path, kind: str
) -> None:
    """Nothing is written over what cannot be read; a node that runs gives what comes before it to
    those who ask.
    """
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
            f"the record behind number {start // record}, at byte {start} of {len(whole)}, does not match its digest"
            in caught.value.what
        )
        assert caught.value.why == str(path)
    assert path.read_bytes() == whole


async def test_branches_left_behind_do_not_fill_the_disk(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    body = bytes(256 << 10)
    for _ in range(80):
        await disk.append_certificate(RUN, 1, body)
        await disk.append_certificate(RUN, 2, body)
    path = tmp_path / "runs" / RUN.hex() / "certificates"
    assert path.stat().st_size < MOST_WASTE_BYTES + 4 * len(body)
    for opened in (disk, FileDisk(tmp_path, inline)):
        assert await opened.certificates(RUN, 1, 10) == [body, body]


# -------------------------------------------------------------------------------------------------- a medium that is really full

REFUSED = """
import resource, sys, trio
from pathlib import Path
from daemon.disk.files import FileDisk
from protocol.ports.disk import DiskFull
from protocol.ports.offload import inline
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk import DiskFull
from protocol.ports.offload import inline
from tests.ports.disk_suite import checkpoint, ledger, RUN
async def main():
    disk = FileDisk(Path(sys.argv[1]), inline)
    await disk.save_checkpoint(checkpoint(1))
    await disk.append_certificate(RUN, 1, b"one")
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    for write in (lambda: disk.save_checkpoint(checkpoint(2, size=100_000)), lambda: disk.append_certificate(RUN, 2, bytes(600_000))):
        try:
            await write()
        except DiskFull as full:
            assert sys.argv[2] in str(full), full
        else:
            sys.exit("it was not refused")
    await disk.save_checkpoint(checkpoint(3))
    assert (await disk.load_checkpoint(RUN)).number == 3
    assert await disk.certificates(RUN, 1, 10) == [b"one"]
    assert len(list(Path(sys.argv[1]).glob("runs/*/checkpoints/*"))) == 2, "a draft was left"
    assert disk.damaged == []
trio.run(main)
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.real
def test_write_that_the_kernel_breaks_off_in_its_middle_leaves_what_was_there(
    tmp_path: Path,
) -> None:
    """By a file size limit: half the draft is on disk when the kernel refuses the rest."""
    subprocess.run(
        [sys.executable, "-c", REFUSED, tmp_path, "File too large", "20000"],
        check=True,
        timeout=60,
        cwd=ROOT,
    )


@pytest.mark.real
def test_file_system_that_is_full_leaves_what_was_there(tmp_path: Path) -> None:
    """On a file system of 512 KB in a mount namespace of its own, which ends with the child."""
    mount = f"mount -t tmpfs -o size=512k none {tmp_path}"
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run(
            [unshare, "-m", "sh", "-c", mount], check=False, timeout=60, capture_output=True
        ).returncode
    ):
        pytest.skip("needs root: mounts a small file system in a namespace of its own")
    command = [
        unshare,
        "-m",
        "sh",
        "-c",
        f'{mount} && exec "$0" "$@"',
        sys.executable,
        "-c",
        REFUSED,
        str(tmp_path),
        "bytes are free",
    ]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    floats = free_bytes(tmp_path) // 4 + 1
    with pytest.raises(DiskFull, match="are free"):
        write_atomically(tmp_path / "x", [memoryview(np.broadcast_to(np.float32(0), (floats,)))])
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- kill -9

WRITER = """
import itertools, sys, numpy as np, trio
from pathlib import Path
from daemon.disk.files import FileDisk
from protocol.ports.disk_records import Checkpoint, LedgerRecord
from protocol.ports.offload import inline
from protocol.ports.offload import inline
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk_records import Checkpoint, LedgerRecord
from protocol.ports.offload import inline
RUN = b"r" * 32
def vector(number): return np.full(50_000, number, np.float32)
async def main():
    disk = FileDisk(Path(sys.argv[1]), inline)
    last = await disk.load_checkpoint(RUN)
    for number in itertools.count(last.number + 1 if last else 1):
        tip, values = number.to_bytes(32, "big"), vector(number)
        await disk.append_certificate(RUN, number, b"%d" % number)
        await disk.save_ledger(LedgerRecord(run=RUN, tip=tip, next_seq=number, weight=0, carried=0, offered_seq=0, offered_weight=0,
            offered_digest=b"", offered=b"x" * number, residue=values))
        await disk.save_checkpoint(Checkpoint(run=RUN, tip=tip, number=number, anchor=values, momentum=values, inner=values))
        print(number, flush=True)
trio.run(main)
"""


def killed_writer(root: Path, delay_s: float) -> int:
    """Let a real process write, kill it that long after its first record, and return the last one
    it said was durable.
    """
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, root], stdout=subprocess.PIPE, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        try:
            lines = writer.stdout.readline()
            # No event to await: the point is to hit any instant.
            time.sleep(delay_s)
        finally:
            writer.kill()
        lines += writer.stdout.read()
    return max(int(line) for line in lines.split(b"\n")[:-1])


@pytest.mark.real
async def test_kill_9_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Twenty real processes (fewer, but five, where the machine is slow) die at random instants of
    writing; what they said was durable is whole.
    """
    generator = np.random.Generator(np.random.PCG64(5))
    start = trio.current_time()
    for kill in range(20):
        if kill >= 5 and trio.current_time() - start > 15.0:
            break
        said = await trio.to_thread.run_sync(killed_writer, tmp_path, generator.random() * 0.05)
        disk = FileDisk(tmp_path, inline)
        loaded = await disk.load_checkpoint(RUN)
        books = await disk.load_ledger(RUN)
        chain = await disk.certificates(RUN, 1, 1_000_000)
        assert loaded is not None
        assert books is not None
        assert loaded.number >= said, "what was durable is gone"
        assert all(
            np.all(vector == loaded.number) and vector.size == 50_000
            for vector in (loaded.anchor, loaded.momentum, loaded.inner)
        )
        assert loaded.number <= books.next_seq <= loaded.number + 1
        assert np.all(books.residue == books.next_seq)
        assert len(books.offered) == books.next_seq
        assert [int(body) for body in chain] == list(range(1, len(chain) + 1))
        assert len(chain) >= books.next_seq
        assert not any("checkpoint" in words or "ledger" in words for words in disk.damaged)


# -------------------------------------------------------------------------------------------------- large vectors


@pytest.mark.real
def test_large_vectors_are_not_copied(tmp_path: Path) -> None:
    """A child saves 3 x 60 MB: its peak memory grows by far less than one of them."""
    script = """
import resource, sys, trio, numpy as np
from pathlib import Path
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
vectors = [np.ones(15_000_000, np.float32) for _ in range(3)]
disk = FileDisk(Path(sys.argv[1]), inline)
def saved(number): return Checkpoint(run=b"r" * 32, tip=b"t" * 32, number=number, anchor=vectors[0], momentum=vectors[1], inner=vectors[2])
async def main():
    before = peak()
    await disk.save_checkpoint(saved(1))
    grown = peak() - before
    assert grown < 20, f"saving took {grown} MB"
    await disk.read_state(b"t" * 32, 30_000_000, 1 << 20)
    assert peak() - before < 20, "a piece was read by reading everything"
trio.run(main)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=120, cwd=ROOT)
