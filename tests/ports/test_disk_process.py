"""The disk of files in real processes: full media, kill -9 and large vectors."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trio

from daemon.disk.atomic import free_bytes, write_atomically
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk import DiskFull
from protocol.ports.offload import inline
from tests.ports.disk_kit import (
    RUN,
)
from tests.ports.file_medium import ROOT

REFUSED = """
import resource, sys, trio
from pathlib import Path
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk import DiskFull
from protocol.ports.offload import inline
from tests.ports.disk_kit import checkpoint, ledger, RUN
async def main():
    disk = FileDisk(Path(sys.argv[1]), inline)
    await disk.save_checkpoint(checkpoint(1))
    await disk.append_certificate(RUN, 1, b"one")
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    for write in (
        lambda: disk.save_checkpoint(checkpoint(2, size=100_000)),
        lambda: disk.append_certificate(RUN, 2, bytes(600_000)),
    ):
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


@pytest.mark.real
def test_write_that_the_kernel_interrupts_leaves_the_old_record(
    tmp_path: Path,
) -> None:
    """A file size limit: half the draft is on disk when the kernel refuses the rest."""
    subprocess.run(
        [sys.executable, "-c", REFUSED, tmp_path, "File too large", "20000"],
        check=True,
        timeout=60,
        cwd=ROOT,
    )


@pytest.mark.real
def test_full_file_system_leaves_the_old_record(tmp_path: Path) -> None:
    """A file system of 512 KB in its own mount namespace, which ends with the child."""
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


def test_record_that_cannot_fit_is_refused_before_the_write(tmp_path: Path) -> None:
    floats = free_bytes(tmp_path) // 4 + 1
    with pytest.raises(DiskFull, match="are free"):
        write_atomically(tmp_path / "x", [memoryview(np.broadcast_to(np.float32(0), (floats,)))])
    assert list(tmp_path.iterdir()) == []


WRITER = """
import itertools, sys, numpy as np, trio
from pathlib import Path
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
        await disk.save_ledger(LedgerRecord(
            run=RUN, tip=tip, next_seq=number, weight=0, carried=0, offered_seq=0,
            offered_weight=0, offered_digest=b"", offered=b"x" * number, residue=values,
        ))
        await disk.save_checkpoint(Checkpoint(
            run=RUN, tip=tip, number=number, anchor=values, momentum=values, inner=values,
        ))
        print(number, flush=True)
trio.run(main)
"""


def killed_writer(root: Path, delay_s: float) -> int:
    """Let a real process write, kill it after `delay_s`, and return the last durable record."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, root], stdout=subprocess.PIPE, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        try:
            lines = writer.stdout.readline()
            # No event marks the moment: any instant must do.
            time.sleep(delay_s)
        finally:
            writer.kill()
        lines += writer.stdout.read()
    return max(int(line) for line in lines.split(b"\n")[:-1])


@pytest.mark.real
async def test_kill_9_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Five to twenty real processes die at random instants of writing.

    Records that they reported as durable are whole.
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
        assert loaded.number >= said, "a durable record is gone"
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


@pytest.mark.real
def test_large_vectors_are_not_copied(tmp_path: Path) -> None:
    """A child saves 3 x 60 MB. Its peak memory grows by far less than one of them."""
    script = """
import resource, sys, trio, numpy as np
from pathlib import Path
from daemon.disk.file_disk import FileDisk
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
vectors = [np.ones(15_000_000, np.float32) for _ in range(3)]
disk = FileDisk(Path(sys.argv[1]), inline)
def saved(number):
    anchor, momentum, inner = vectors
    return Checkpoint(
        run=b"r" * 32, tip=b"t" * 32, number=number,
        anchor=anchor, momentum=momentum, inner=inner,
    )
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
