"""The processes of one demo: starts real daemons, watches them, and stops them.

The first daemon must be up before the others join it. The observer starts last, since it has
nothing to show before. However the demo ends (enough rounds, Ctrl-C, a stall, a bug of ours), the
same steps end the processes. If the demo itself is killed, its lifeline ends them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.demo.comparison import Comparison
from daemon.demo.demo_settlement import DemoSettlement
from daemon.demo.lone_process import LoneMachine
from daemon.demo.process import DemoProcess, Lifeline
from daemon.demo.progress_output import ProgressOutput
from daemon.demo.result import RewardSummary, RoundTally
from daemon.demo.stop_request import StopRequest
from protocol.chain.errors import ChainError
from protocol.errors import UserError
from protocol.status import Status

# Training progress changes twice a second.
LOOK_S = 0.5
# A daemon is up in 3 s on an idle machine. A loaded one with a cold disk took 40 s.
UP_TIMEOUT_S = 90.0
# A daemon stops within 20 s of a request, whatever it does.
STOP_TIMEOUT_S = 25.0
LOOPBACK = "127.0.0.1"
# A demo lasts a minute. With a node's usual 2% it would show two points of the held-out loss.
EVALUATION_SHARE = 0.1

Settings = dict[str, dict[str, object]]


class DemoSupervisor:
    """The processes of one demo. Leaving the block ends every one of them."""

    def __init__(
        self,
        root: Path,
        run_file: Path | None,
        peers: int,
        output: ProgressOutput,
        settlement: DemoSettlement | None = None,
        *,
        alone: bool = False,
    ) -> None:
        """`root` gets the homes. With `alone`, a lone machine trains beside. Starts nothing."""
        self._root = root
        self._run_file = run_file
        self._peers = peers
        self._output = output
        self._settlement = settlement
        self._lifeline = Lifeline()
        self._daemons: list[DemoProcess] = []
        self._observer: DemoProcess | None = None
        self._lone = LoneMachine(root, peers) if alone else None
        self._page_announced = False
        self._dead: set[str] = set()
        self.tally = RoundTally(time.time())

    def __enter__(self) -> DemoSupervisor:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes():
            process.kill()
        if self._lone is not None:
            self._lone.process.kill()
        self._lifeline.close()

    @property
    def finishers(self) -> list[DemoProcess]:
        """The daemons that did not die before the demo asked them to stop."""
        return [process for process in self._daemons if process.name not in self._dead]

    def members(self) -> list[DemoProcess]:
        """Return the finishers that took part in a certificate.

        Any other finisher has no anchor to compare, which this reports.
        """
        newcomers = [one.name for one in self.finishers if not self.tally.reached(one.name)]
        if newcomers and self.tally.rounds:
            self._output.tell(
                f"{', '.join(newcomers)} had no certified round yet, and so no anchor to compare."
            )
        return [process for process in self.finishers if process.name not in newcomers]

    def run(self, rounds: int, stall_timeout_s: float, stop: StopRequest) -> str:
        """Start and watch the swarm. Returns why it ended early, or an empty string."""
        self._output.tell(f"Starting {self._peers} daemons on this machine, in {self._root}")
        if self._settlement:
            self._output.tell("Starting a chain, with a wallet for each daemon.")
            self._settlement.begin(self._lifeline)
        addresses = self._start_first(stop)
        if stop.is_set():
            return ""
        for number in range(2, self._peers + 1):
            self._start_daemon(number, addresses)
        moved: dict[str, tuple[int, float]] = {}
        while not stop.wait(LOOK_S):
            self._look()
            living = [process for process in self.finishers if process.alive]
            if not living:
                return "Every daemon died."
            missing = (
                [one for one in living if self.tally.reached(one.name) < rounds]
                if rounds
                else living
            )
            if not missing:
                return ""
            stalled = self._stalled(missing, moved, stall_timeout_s)
            # With a goal, one stalled daemon would make the demo wait for ever. Without a goal, the
            # demo continues as long as any daemon makes progress.
            if stalled and (rounds or len(stalled) == len(living)):
                tails = "\n".join(f"  {one.name}:\n{one.tail()}" for one in self._processes())
                return (
                    f"{', '.join(stalled)} certified no round for {stall_timeout_s:.0f} s."
                    f" The ends of the logs:\n{tails}"
                )
            self._start_observer(addresses)
            self._start_lone()
        return ""

    def pay(self) -> RewardSummary | None:
        """Settle and claim what the members earned; None in a demo without a chain."""
        if self._settlement is None:
            return None
        earners = [one.name for one in self.members() if one.alive]
        try:
            paid = self._settlement.pay(earners)
        except (UserError, ChainError) as error:
            self._output.tell(f"The settlement failed: {error}")
            paid = ()
        return RewardSummary(pool=str(self._settlement.pool), paid=paid)

    def close(self) -> None:
        """Look once more, then ask every process to stop; kill any that does not.

        The lone machine goes on; `comparison` ends it.
        """
        self._look()
        for process in self._processes():
            process.ask_to_stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self._processes():
            if not process.wait(deadline - time.monotonic()):
                self._output.tell(
                    f"{process.name} did not stop within {STOP_TIMEOUT_S:.0f} s and was killed."
                    f" The end of its log:\n{process.tail()}"
                )
                process.kill()

    def comparison(self, stop: StopRequest) -> Comparison | None:
        """Compare the swarm with the lone machine, and end it. Call after `close`."""
        if self._lone is None:
            return None
        try:
            return None if stop.is_set() else self._lone.finish()
        finally:
            self._lone.process.kill()

    def _start_lone(self) -> None:
        """Start the lone machine once every living daemon has answered."""
        if self._lone is None or self._lone.started or self._observer is None:
            return
        self._lone.start(self._lifeline, {"worker": self._worker()}, self._run_file)

    def _worker(self) -> dict[str, object]:
        """Return the `[worker]` of each daemon and of the lone machine: equal machines."""
        return {
            "threads": max(1, (os.cpu_count() or 1) // self._peers),
            "evaluation_share": EVALUATION_SHARE,
        }

    def _stalled(
        self,
        processes: list[DemoProcess],
        moved: dict[str, tuple[int, float]],
        stall_timeout_s: float,
    ) -> list[str]:
        """Return the daemons without progress for too long. `moved` keeps their last progress."""
        now = time.monotonic()
        for process in processes:
            reached = self.tally.reached(process.name)
            if process.name not in moved or moved[process.name][0] != reached:
                moved[process.name] = (reached, now)
        return [one.name for one in processes if now - moved[one.name][1] > stall_timeout_s]

    def _processes(self) -> list[DemoProcess]:
        others = [self._observer, self._settlement.devnet if self._settlement else None]
        return [*self._daemons, *(process for process in others if process is not None)]

    def _start_daemon(self, number: int, join: tuple[str, ...]) -> DemoProcess:
        name = f"node-{number}"
        process = DemoProcess(name, self._root / name)
        self._daemons.append(process)
        settings: Settings = {
            "node": {"name": name},
            "network": {"listen_host": LOOPBACK},
            # The observer's page shows all of them.
            "page": {"enabled": False},
            "worker": self._worker(),
        }
        if self._settlement:
            settings["chain"] = self._settlement.settings()
        arguments = ["start", *_joins(join)]
        if self._run_file and not join:
            arguments += ["--run", str(self._run_file)]
        if self._settlement:
            arguments += self._settlement.arguments()
        process.start(self._lifeline, settings, arguments)
        return process

    def _start_first(self, stop: StopRequest) -> tuple[str, ...]:
        """Start the first daemon. Returns the addresses that the others join."""
        process = self._start_daemon(1, ())
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not stop.wait(LOOK_S / 4):
            status = process.status()
            if status is not None and status.you.addresses:
                local = tuple(one for one in status.you.addresses if f"/{LOOPBACK}/" in one)
                return local or status.you.addresses
            if not process.alive or time.monotonic() > deadline:
                how = (
                    f"it was not up after {UP_TIMEOUT_S:.0f} s"
                    if process.alive
                    else f"it {process.ending}"
                )
                raise UserError(
                    "DEMO_START",
                    "The first daemon did not start.",
                    why=f"{how}; the end of its log:\n{process.tail()}",
                )
        return ()

    def _look(self) -> None:
        statuses: Mapping[str, Status | None] = {
            process.name: process.status() if process.alive else None for process in self._daemons
        }
        for certified in self.tally.update(statuses):
            self._output.certified(certified, self._peers)
        for process in self._daemons:
            if not process.alive and process.name not in self._dead:
                self._dead.add(process.name)
                self._output.tell(
                    f"{process.name} {process.ending}; the others continue."
                    f" The end of its log:\n{process.tail()}"
                )
        if self._observer and not self._page_announced and (page := self._observer.url()):
            self._output.tell(f"The page of this swarm: {page}/")
            self._page_announced = True
        self._output.show(statuses)
        if self._lone is not None:
            self._lone.look(statuses)

    def _start_observer(self, join: tuple[str, ...]) -> None:
        """Start the observer once every living daemon has answered.

        Until then the daemons need the machine's cores.
        """
        if self._observer or not all(self.tally.heard(one.name) for one in self.finishers):
            return
        self._observer = DemoProcess("observer", self._root / "observer")
        settings: Settings = {
            "network": {"listen_host": LOOPBACK},
            "observer": {"host": LOOPBACK, "port": 0},
        }
        if self._lone is not None:
            settings["observer"]["reference"] = str(self._lone.reference)
        self._observer.start(self._lifeline, settings, ["observe", *_joins(join)])


def _joins(addresses: Sequence[str]) -> list[str]:
    return [part for address in addresses for part in ("--join", address)]
