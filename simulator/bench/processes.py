"""Processes of a benchmark: it sends them lines and reads lines, and all of them end with it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from protocol.errors import Unreachable

# An endpoint with its certificate has 1 KB; hivemind's addresses are shorter.
MAX_LINE_BYTES = 1 << 20
GONE_S = 5.0
LOG_TAIL_BYTES = 2000
TICKS = os.sysconf("SC_CLK_TCK")


class BenchProcesses:
    """A context manager: its processes live inside the block.

    `name` is what a process is called when it fails.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        # What was read of a process behind its last line.
        self._unread: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._processes)

    def start(self, module: str, argument: str, prefix: Sequence[str] = ()) -> None:
        """Start one process: `module` as a program with one argument, run by `prefix` if given."""
        command = [*prefix, sys.executable, "-m", module, argument]
        log = tempfile.TemporaryFile()  # noqa: SIM115
        self._logs.append(log)
        self._processes.append(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                bufsize=0,
                env=_environment(),
            )
        )

    def send(self, index: int, line: bytes) -> None:
        pipe = self._processes[index].stdin
        assert pipe is not None
        pipe.write(line)

    def read_line(self, index: int, limit_s: float) -> bytes:
        """Read the next line of a process, with its line feed.

        Raises:
            Unreachable: When the process died or fell silent.
        """
        pipe = self._processes[index].stdout
        assert pipe is not None
        data, deadline = self._unread.pop(index, b""), time.monotonic() + limit_s
        while b"\n" not in data:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(pipe.fileno(), MAX_LINE_BYTES) if ready else b""
            if not piece:
                why = "died" if ready else f"was silent for {limit_s:.0f} s"
                raise Unreachable(f"peer {index} of {self._name} {why}: {self._tail(index)}")
            data += piece
        line, feed, rest = data.partition(b"\n")
        # A process may have written its next line already.
        self._unread[index] = rest
        return line + feed

    def cpu_s(self) -> float:
        """Seconds of CPU that all their sessions have used, from /proc; a tick is 10 ms."""
        ticks = 0
        for process in self._processes:
            for pid in _session(process.pid):
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def close(self) -> None:
        """End every process of every session: hivemind's children outlive a killed peer."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        deadline = time.monotonic() + GONE_S
        for process in self._processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in _session(process.pid):
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            if process.stdout is not None:
                process.stdout.close()
        for log in self._logs:
            log.close()

    def _tail(self, index: int) -> str:
        log = self._logs[index]
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - LOG_TAIL_BYTES))
        return log.read().decode("utf-8", "replace").strip()


def _session(leader: int) -> list[int]:
    """The live processes of a session."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def _environment() -> dict[str, str]:
    """One thread for numeric libraries: the peers share the machine's cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
