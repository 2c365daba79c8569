"""The disk of files passes the suite of `Disk`, and keeps its files private and readable."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import trio

from daemon.disk.atomic import DRAFT_PREFIX
from daemon.disk.chain_file import MOST_WASTE_BYTES
from daemon.disk.checkpoint_keeping import KeepRules
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk import DiskFull
from protocol.ports.offload import inline
from tests.ports.disk_kit import (
    RUN,
    MediumFactory,
    checkpoint,
    content,
    ledger,
    mark,
    proof,
    results,
    save_results,
    stands,
    tip_of,
)
from tests.ports.disk_suite import DiskSuite
from tests.ports.file_medium import FOLDER, OnFiles, checkpoints_in


@pytest.fixture
def numbered(tmp_path: Path) -> Iterator[Path]:
    """Empty directories."""
    return (tmp_path / str(number) for number in range(10_000))


class TestFileDisk(DiskSuite):
    @pytest.fixture
    def make_medium(self, numbered: Iterator[Path]) -> MediumFactory:
        return lambda: OnFiles(next(numbered))


class TestFileDiskInThreads(DiskSuite):
    """The disk as a real node uses it."""

    @pytest.fixture
    def make_medium(self, numbered: Iterator[Path]) -> MediumFactory:
        return lambda: OnFiles(next(numbered), trio.to_thread.run_sync)


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
        await disk.save_mark(RUN, mark(1))
        await save_results(disk, 1)
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


async def test_first_write_removes_drafts_of_a_dead_process(
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


async def test_checkpoint_that_is_being_written_is_not_served(tmp_path: Path) -> None:
    """A draft's name ends as its checkpoint's name does.

    Once a member that downloaded from a draft got too few bytes, and never asked that node again.
    """
    disk = FileDisk(tmp_path, inline)
    await disk.save_checkpoint(checkpoint(1))
    whole = next((tmp_path / FOLDER / "checkpoints").glob("*.safetensors"))
    whole.rename(whole.with_name(".draft-" + whole.name))
    assert await disk.read_state(tip_of(1), 0, 10) is None
    assert await disk.open_state(tip_of(1)) is None


async def test_results_are_synced_before_and_after_they_get_their_name(tmp_path: Path) -> None:
    """A keeper votes when the save returns, so a power cut must not take the results then."""
    steps: list[str] = []
    disk = FileDisk(tmp_path, inline, fault=steps.append)
    await save_results(disk, 1)
    assert steps == ["write"] * len(results(1)) + ["sync", "rename", "sync_dir"]
    await disk.save_mark(RUN, mark(1))
    steps.clear()
    await disk.save_mark(RUN, mark(2))
    assert steps == ["write", "sync"], "a mark is overwritten in place"


async def test_draft_of_results_is_not_read_and_is_removed(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path, inline)
    await save_results(disk, 1)
    (file,) = (tmp_path / FOLDER / "results").iterdir()
    draft = file.rename(file.with_name(DRAFT_PREFIX + file.name))
    reopened = FileDisk(tmp_path, inline)
    assert await reopened.read_results(RUN, tip_of(1)) is None
    await save_results(reopened, 2)
    assert not draft.exists()
    assert await reopened.read_results(RUN, tip_of(2)) == b"".join(results(2))


async def test_refused_write_leaves_no_draft(tmp_path: Path) -> None:
    medium = OnFiles(tmp_path)
    medium.fill()
    with pytest.raises(DiskFull) as caught:
        await medium.open().save_checkpoint(checkpoint(1))
    assert checkpoints_in(tmp_path) == []
    for words in (str(tmp_path), "needs", "free", "No space left"):
        assert words in str(caught.value)


async def test_checkpoints_of_every_left_branch_are_kept_apart(tmp_path: Path) -> None:
    """Nothing that others certify deletes what a node certified, however often it moves."""
    disk = FileDisk(tmp_path, inline)
    for number in range(1, 6):
        await disk.save_checkpoint(checkpoint(number))
        await disk.leave_checkpoints(RUN, [tip_of(number)])
    assert [path.name for path in checkpoints_in(tmp_path)] == ["left"]
    left = sorted((tmp_path / FOLDER / "checkpoints" / "left").glob("*/*.safetensors"))
    assert [int(path.name[:10]) for path in left] == [1, 2, 3, 4, 5]
    assert await FileDisk(tmp_path, inline).load_checkpoint(RUN) is None


async def test_older_checkpoints_give_way_to_a_new_one_on_a_full_disk(tmp_path: Path) -> None:
    def fail(step: str) -> None:
        if step == "write" and full:
            full.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full: list[int] = []
    disk = FileDisk(tmp_path, inline, KeepRules(limit_bytes=1), fault=fail)
    for number in (1, 2):
        await FileDisk(tmp_path, inline).save_checkpoint(checkpoint(number))
        await FileDisk(tmp_path, inline).leave_checkpoints(RUN, [tip_of(number)])
    full.append(1)
    await disk.save_checkpoint(checkpoint(3))
    assert content(await disk.load_checkpoint(RUN)) == content(checkpoint(3))
    full.append(1)
    with pytest.raises(DiskFull):
        await disk.save_checkpoint(checkpoint(4))


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
