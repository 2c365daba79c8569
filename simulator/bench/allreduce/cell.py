"""The peers of one engine and codec: processes in sessions of their own, asked all at once and waited for."""

from __future__ import annotations

import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from protocol.errors import Unreachable
from simulator.bench.allreduce.driving import Settings
from simulator.bench.allreduce.lines import (
    MAX_LINE_BYTES,
    Answer,
    Check,
    Checked,
    Done,
    Go,
    Here,
    Line,
    Meet,
    Prepare,
    decode_answer,
    encode,
)

UP_S = 120.0  # imports of torch on a busy machine, and 10 million random numbers for each peer
ROUND_S = 400.0
LEAD_S = 0.15  # between telling all peers when to begin and that moment
GONE_S = 5.0
LOG_TAIL_BYTES = 2000
TICKS = os.sysconf("SC_CLK_TCK")


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One averaging by all peers. `seconds` from the first that began to the last that ended."""

    seconds: float
    cpu_seconds: float  # of all peers' sessions, children included
    max_error: float
    agree: bool  # whether all peers hold the same bytes
    failure: str


class Cell:
    """A context manager: the processes are there inside it."""

    def __init__(
        self, engine: str, codec: str, peers: int, elements: int, hosts: Sequence[str], device: str, prefixes: Sequence[tuple[str, ...]]
    ) -> None:
        self.engine, self.codec, self.peers, self.elements = engine, codec, peers, elements
        self._hosts, self._device, self._prefixes = hosts, device, prefixes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        self._number = 0

    def __enter__(self) -> Cell:
        try:
            infos: list[str] = []
            for index in range(self.peers):
                self._start(index, infos[0] if infos else "")
                if not infos:
                    infos.append(self._here(0))  # the others may want to join it
            infos += [self._here(index) for index in range(1, self.peers)]
            self._ask(Meet(infos=tuple(infos)), UP_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self, index: int, join: str) -> None:
        settings = Settings(
            engine=self.engine,
            codec=self.codec,
            index=index,
            peers=self.peers,
            elements=self.elements,
            host=self._hosts[index],
            device=self._device,
            join=join,
        )
        command = [*self._prefixes[index], sys.executable, "-m", "simulator.bench.allreduce.peer", msgspec.json.encode(settings).decode()]
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the cell
        self._logs.append(log)
        self._processes.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True, bufsize=0, env=_environment()
            )
        )

    def _here(self, index: int) -> str:
        line = self._read(index, UP_S)
        assert isinstance(line, Here)
        return line.info

    def close(self) -> None:
        """End every process of every peer's session: hivemind's children outlive a peer that is killed."""
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

    # -------------------------------------------------------------------------------------------- rounds

    def round(self) -> Round:
        """Prepare all, then begin at one moment. Raises `Unreachable` when a peer died or fell silent."""
        self._number += 1
        self._ask(Prepare(number=self._number), ROUND_S)
        before = self._cpu()
        done = [line for line in self._ask(Go(at_s=time.monotonic() + LEAD_S), ROUND_S) if isinstance(line, Done)]
        cpu = self._cpu() - before
        checked = [line for line in self._ask(Check(), ROUND_S) if isinstance(line, Checked)]
        failures = [line.failure for line in done if line.failure]
        return Round(
            seconds=max(line.ended_s for line in done) - min(line.began_s for line in done),
            cpu_seconds=cpu,
            max_error=max(math.inf if line.max_error is None else line.max_error for line in checked),
            agree=len({line.result for line in checked}) == 1,
            failure=failures[0] if failures else "",
        )

    def _ask(self, line: Line, limit_s: float) -> list[Answer]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(encode(line))
        return [self._read(index, limit_s) for index in range(self.peers)]

    def _read(self, index: int, limit_s: float) -> Answer:
        pipe = self._processes[index].stdout
        assert pipe is not None
        data, deadline = b"", time.monotonic() + limit_s
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(pipe.fileno(), MAX_LINE_BYTES) if ready else b""
            if not piece:
                why = "died" if ready else f"said nothing for {limit_s:.0f} s"
                raise Unreachable(f"peer {index} of {self.engine} {self.codec} {why}: {self._tail(index)}")
            data += piece
        return decode_answer(data)

    def _tail(self, index: int) -> str:
        log = self._logs[index]
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - LOG_TAIL_BYTES))
        return log.read().decode("utf-8", "replace").strip()

    def _cpu(self) -> float:
        """Seconds of CPU that the peers' sessions have used, from /proc; a tick is 10 ms, a round has tens of them."""
        ticks = 0
        for process in self._processes:
            for pid in _session(process.pid):
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
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
    """One thread for numeric libraries: the peers share the machine's cores as they would in a benchmark of one thread each."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
