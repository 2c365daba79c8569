"""`Cell`: the peers of one engine and codec, each a process in its own session."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

import msgspec

from simulator.bench.allreduce.driver import DriverSettings
from simulator.bench.allreduce.wire import (
    Answer,
    CheckMean,
    MeanChecked,
    MeetPeers,
    PeerLine,
    PeerListens,
    PrepareRound,
    RoundDone,
    StartRound,
    decode_answer,
    encode,
)
from simulator.bench.processes import BenchProcesses

# Imports of torch on a busy machine, and 10 million random numbers for each peer.
UP_S = 120.0
ROUND_S = 400.0
# Between the command to start and the start.
LEAD_S = 0.15


class CellRound(msgspec.Struct, frozen=True, kw_only=True):
    """One averaging by all peers.

    `seconds` run from the first peer that began to the last that ended.
    """

    seconds: float
    # CPU time of all peers' sessions, with their children.
    cpu_seconds: float
    max_error: float
    # Whether all peers hold the same bytes.
    agree: bool
    failure: str
    # Whether the peers found each other.
    grouped: bool = True


class Cell:
    """A context manager: its processes live inside the block."""

    def __init__(
        self,
        engine: str,
        codec: str,
        peers: int,
        elements: int,
        hosts: Sequence[str],
        device: str,
        prefixes: Sequence[tuple[str, ...]],
    ) -> None:
        self.engine, self.codec, self.peers, self.elements = engine, codec, peers, elements
        self._hosts, self._device, self._prefixes = hosts, device, prefixes
        self._processes = BenchProcesses(f"{engine} {codec}")
        self._number = 0

    def __enter__(self) -> Cell:
        self.start()
        return self

    def start(self) -> None:
        """Start all peers on ports that the system chooses, and end earlier ones.

        Raises:
            Unreachable: When a peer died, fell silent or did not find the others.
        """
        self.close()
        self._processes = BenchProcesses(f"{self.engine} {self.codec}")
        self._number = 0
        try:
            infos: list[str] = []
            for index in range(self.peers):
                self._start(index, infos[0] if infos else "")
                if not infos:
                    infos.append(self._here(0))  # The others may join it.
            infos += [self._here(index) for index in range(1, self.peers)]
            self._ask(MeetPeers(infos=tuple(infos)), UP_S)
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, index: int, join: str) -> None:
        settings = DriverSettings(
            engine=self.engine,
            codec=self.codec,
            index=index,
            peers=self.peers,
            elements=self.elements,
            host=self._hosts[index],
            device=self._device,
            join=join,
        )
        self._processes.start(
            "simulator.bench.allreduce.peer",
            msgspec.json.encode(settings).decode(),
            self._prefixes[index],
        )

    def _here(self, index: int) -> str:
        line = decode_answer(self._processes.read_line(index, UP_S))
        assert isinstance(line, PeerListens)
        return line.info

    def close(self) -> None:
        self._processes.close()

    def round(self) -> CellRound:
        """Prepare all peers, then start the averaging at one moment.

        Raises:
            Unreachable: When a peer died or fell silent.
        """
        self._number += 1
        self._ask(PrepareRound(number=self._number), ROUND_S)
        before = self._processes.cpu_s()  # A round takes tens of its ticks.
        done = [
            line
            for line in self._ask(StartRound(at_s=time.monotonic() + LEAD_S), ROUND_S)
            if isinstance(line, RoundDone)
        ]
        cpu = self._processes.cpu_s() - before
        checked = [
            line for line in self._ask(CheckMean(), ROUND_S) if isinstance(line, MeanChecked)
        ]
        failures = [line.failure for line in done if line.failure]
        return CellRound(
            seconds=max(line.ended_s for line in done) - min(line.began_s for line in done),
            cpu_seconds=cpu,
            max_error=max(
                math.inf if line.max_error is None else line.max_error for line in checked
            ),
            agree=len({line.result for line in checked}) == 1,
            failure=failures[0] if failures else "",
            grouped=all(line.grouped for line in done),
        )

    def _ask(self, line: PeerLine, limit_s: float) -> list[Answer]:
        for index in range(self.peers):
            self._processes.send(index, encode(line))
        return [
            decode_answer(self._processes.read_line(index, limit_s)) for index in range(self.peers)
        ]
