"""Ten real daemons on loopback train a shipped run; one of them is killed at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from daemon.children.descendants import descendants
from daemon.demo.founders import with_demo_founders
from daemon.demo.process import DemoProcess, Lifeline
from daemon.home.layout import JOURNAL_FILE
from protocol.errors import Unreachable
from protocol.status import RoundSummary, Status
from simulator.bench.allreduce.peer_hosts import LOOPBACK
from simulator.bench.targets.observer_answers import answered_s, knows_round, status_connection
from simulator.bench.targets.readings import noticed_at, pss_bytes, whole_rounds

LOOK_S = 0.2
# A daemon is up in 3 s on an idle machine. Ten of them on two cores take half a minute.
UP_S = 90.0
# From the last start until a round counts everybody, and the rounds that are measured.
ROUNDS_S = 120.0
# A loss that takes longer has missed its target by far.
NOTICED_S = 15.0
STOP_S = 25.0

T = TypeVar("T")


class MemoryReading(NamedTuple):
    """Bytes of memory of all node processes, and of all that they started."""

    nodes: int
    workers: int


class DaemonSwarm:
    """The daemons, and an observer of them. Leaving the block ends every process."""

    def __init__(self, root: Path, run_file: Path, count: int) -> None:
        """`root` gets the homes. Starts nothing."""
        self._root, self._run_file = root, run_file
        self.daemons = [DemoProcess(f"node-{i}", root / f"node-{i}") for i in range(1, count + 1)]
        self._observer = DemoProcess("observer", root / "observer")
        self._lifeline = Lifeline()

    def __enter__(self) -> DaemonSwarm:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.daemons, self._observer):
            process.kill()
        self._lifeline.close()

    # ---------------------------------------------------------------- begin and end

    def start(self) -> None:
        """Start the daemons; the others join the first.

        Raises:
            Unreachable: The first daemon did not answer in time.
        """
        first, *others = self.daemons
        text = self._run_file.read_text(encoding="utf-8")
        founded = with_demo_founders(text, [daemon.home for daemon in self.daemons])
        self._run_file.write_text(founded, encoding="utf-8")
        self._start(first, ["start", "--run", str(self._run_file)])
        address = self._address(first)
        for daemon in others:
            self._start(daemon, ["start", "--join", address])

    def stop(self) -> None:
        """Ask every process to stop, and kill what does not."""
        processes = [*self.daemons, self._observer]
        for process in processes:
            process.ask_to_stop()
        deadline = time.monotonic() + STOP_S
        for process in processes:
            if not process.wait(deadline - time.monotonic()):
                process.kill()

    def _start(self, daemon: DemoProcess, arguments: list[str]) -> None:
        daemon.start(
            self._lifeline,
            {
                "node": {"name": daemon.name},
                "network": {"listen_host": LOOPBACK},
                "page": {"enabled": False},
                "worker": {"threads": 1, "device": "cpu"},
            },
            arguments,
        )

    def _address(self, daemon: DemoProcess) -> str:
        def address() -> str:
            status = daemon.status()
            return status.you.addresses[0] if status is not None and status.you.addresses else ""

        return self._until(address, f"{daemon.name} answers", UP_S)

    def _until(self, look: Callable[[], T | None], what: str, limit_s: float) -> T:
        """Look until the result is true, and return it.

        Raises:
            Unreachable: It did not become true in time, or a daemon that must live died.
        """
        deadline = time.monotonic() + limit_s
        living = [daemon for daemon in self.daemons if daemon.alive]
        while not (seen := look()):
            for daemon in living:
                if not daemon.alive:
                    raise Unreachable(f"{daemon.name} {daemon.ending}: {daemon.tail()}")
            if time.monotonic() > deadline:
                raise Unreachable(f"not within {limit_s:.0f} s: {what}")
            time.sleep(LOOK_S)
        return seen

    # ---------------------------------------------------------------- training

    def rounds(self, count: int, each: Callable[[], None]) -> list[RoundSummary]:
        """Wait for a round that counts everybody, and for `count` rounds after it.

        Args:
            count: how many rounds are measured.
            each: called at every look after the first round that counts everybody.

        Returns:
            `count` + 1 rounds, as the first daemon has them.

        Raises:
            Unreachable: A daemon died, or the rounds took too long.
        """

        def look() -> list[RoundSummary]:
            status = self.daemons[0].status()
            rounds = whole_rounds(status.rounds, len(self.daemons)) if status is not None else []
            if rounds:
                each()
            return rounds if len(rounds) > count else []

        what = f"{count} rounds after one that counts all {len(self.daemons)} daemons"
        return self._until(look, what, UP_S + ROUNDS_S)[: count + 1]

    def memory_bytes(self) -> MemoryReading:
        """The memory of all daemons and their workers, each shared page counted once in all."""
        return MemoryReading(
            nodes=sum(_memory_bytes(daemon.pid) for daemon in self.daemons),
            workers=sum(
                _memory_bytes(pid) for daemon in self.daemons for pid in descendants(daemon.pid)
            ),
        )

    # ---------------------------------------------------------------- the observer

    def answers_s(self, requests: int) -> list[float]:
        """Start an observer, and time its answers to requests for the status.

        Raises:
            Unreachable: The observer did not answer.
        """
        self._start_observer()
        url = urlsplit(self._until(self._observer.url, "the observer has a page", UP_S))
        assert url.hostname is not None
        with status_connection(url.hostname, url.port) as connection:
            # The first answers come while it still joins.
            self._until(lambda: knows_round(connection), "the observer knows a round", UP_S)
            return [answered_s(connection) for _ in range(requests)]

    def _start_observer(self) -> None:
        self._observer.start(
            self._lifeline,
            {
                "network": {"listen_host": LOOPBACK},
                "observer": {"host": LOOPBACK, "port": 0},
            },
            ["observe", "--join", self._address(self.daemons[0])],
        )

    # ---------------------------------------------------------------- the loss of a member

    def lose(self, victim: DemoProcess) -> tuple[float, dict[str, float | None]]:
        """`kill -9` one daemon, and wait until the daemons connected to it know.

        Returns:
            When it was killed, and when each daemon knew (unix seconds; None: never).

        Raises:
            Unreachable: The victim or the others did not answer.
        """
        lost = self._status(victim).you.peer
        others = [
            daemon
            for daemon in self.daemons
            if daemon is not victim
            and any(peer.peer == lost and peer.connected for peer in self._status(daemon).peers)
        ]
        if not others:
            raise Unreachable(f"no daemon is connected to {victim.name}")
        killed_at = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        deadline = time.monotonic() + NOTICED_S
        while True:
            noticed = {
                daemon.name: noticed_at((daemon.home / JOURNAL_FILE).read_bytes(), lost, killed_at)
                for daemon in others
            }
            if None not in noticed.values() or time.monotonic() > deadline:
                return killed_at, noticed
            time.sleep(LOOK_S)

    def _status(self, daemon: DemoProcess) -> Status:
        return self._until(daemon.status, f"{daemon.name} answers", UP_S)


def _memory_bytes(pid: int) -> int:
    try:
        return pss_bytes(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
    except (OSError, ValueError):
        # The process ended meanwhile, and a zombie has no memory.
        return 0
