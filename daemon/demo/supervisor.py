"""The demo from curtain to curtain: start real daemons, watch them, stop them, judge.

The first daemon is up before the others are told to join it; the observer comes last, since it has
nothing to show before. Whatever ends the demo (enough rounds, Ctrl-C, nothing happening, an error
of ours), the same steps end the children, and the lifeline ends them when the demo itself is
killed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.cli.invocation import Invocation
from daemon.demo.agreement import compare_anchors
from daemon.demo.process import DemoProcess, Lifeline
from daemon.demo.progress_output import ProgressOutput, open_output
from daemon.demo.result import RewardSummary, RoundTally, result_text
from daemon.demo.stop_request import StopRequest, until_signalled
from daemon.node.run_choice import bundled_text, load_or_bundled_manifest
from protocol.chain.errors import ChainError
from protocol.errors import UserError
from protocol.status import Status

if TYPE_CHECKING:
    from daemon.demo.settlement_demo import SettlementDemo

LOOK_S = 0.5  # training progress changes twice a second
# A daemon is up in 3 s on an idle machine; a loaded one with a cold disk took 40.
UP_TIMEOUT_S = 90.0
# Without a new certified round, beyond what the run's own round takes; the first one must come
# within 60 s.
PATIENCE_S = 180.0
# A daemon itself leaves within 20 s of being asked, whatever it was doing.
STOP_TIMEOUT_S = 25.0
LOOPBACK = "127.0.0.1"
INTERRUPTED = 130


def run_demo(
    talk: Invocation,
    *,
    peers: int,
    rounds: int,
    run_file: Path | None,
    chain: bool = False,
    anvil: bool = False,
) -> int:
    """Show the swarm until `rounds` are certified everywhere (0: until Ctrl-C), print the verdict,
    and return the exit code.

    Guarantees that nothing it started is running when it returns. Raises `UserError` where the
    run's file is wrong or the first daemon does not come up.
    """
    manifest = load_or_bundled_manifest(run_file)
    patience_s = PATIENCE_S + 4 * manifest.round.seconds
    with ExitStack() as stack:
        leave = stack.enter_context(until_signalled())
        root = Path(tempfile.mkdtemp(prefix="hypergpu-demo-"))
        seats = stack.enter_context(open_output(talk))
        try:
            chosen = run_file.absolute() if run_file else None
            payday = _payday(root, chosen, peers, leave, seats, anvil) if chain else None
            with DemoSupervisor(
                root, payday.run_file(_text_of(chosen)) if payday else chosen, peers, seats, payday
            ) as stage:
                reason = stage.play(rounds, patience_s, leave)
                paid = stage.pay()
                stage.close()
                agreement = compare_anchors(
                    [child.home for child in stage.members()], stage.tally.run
                )
                verdict = stage.tally.verdict(peers, agreement, paid)
        except UserError:
            seats.tell(f"The logs are kept in {root}")
            raise
        except KeyboardInterrupt:  # the second Ctrl-C: no verdict, no files
            shutil.rmtree(root, ignore_errors=True)
            raise
        if reason:
            seats.tell(reason)
        seats.leave()
        talk.result(
            msgspec.json.encode(verdict).decode()
            if talk.as_json
            else result_text(verdict, agreement)
        )
        # Without --rounds, Ctrl-C is how a demo ends.
        interrupted = leave.is_set() and rounds > 0
        if interrupted or (verdict.good and not reason):
            shutil.rmtree(root, ignore_errors=True)
            return INTERRUPTED if interrupted else 0
        talk.say(f"The logs and checkpoints are kept in {root}")
        return 1


class DemoSupervisor:
    """The children of one demo. Leaving the block ends every one of them."""

    def __init__(
        self,
        root: Path,
        run_file: Path | None,
        peers: int,
        seats: ProgressOutput,
        payday: SettlementDemo | None = None,
    ) -> None:
        self._root = root
        self._run_file = run_file
        self._peers = peers
        self._seats = seats
        self._payday = payday
        self._lifeline = Lifeline()
        self._daemons: list[DemoProcess] = []
        self._observer: DemoProcess | None = None
        self._page_told = False
        self._mourned: set[str] = set()
        self.tally = RoundTally(time.time())

    def __enter__(self) -> DemoSupervisor:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children():
            child.kill()
        self._lifeline.close()

    @property
    def finishers(self) -> list[DemoProcess]:
        """The daemons that did not die before they were asked to stop."""
        return [child for child in self._daemons if child.name not in self._mourned]

    def members(self) -> list[DemoProcess]:
        """The finishers that took part in a certificate.

        One that never did holds no anchor to compare, and is told of.
        """
        newcomers = [child.name for child in self.finishers if not self.tally.reached(child.name)]
        if newcomers and self.tally.rounds:
            self._seats.tell(
                f"{', '.join(newcomers)} had no certified round yet, and no anchor to compare."
            )
        return [child for child in self.finishers if child.name not in newcomers]

    def play(self, rounds: int, patience_s: float, leave: StopRequest) -> str:
        """Start and watch. Returns why it ended early, or an empty sentence."""
        self._seats.tell(f"Starting {self._peers} daemons on this machine, in {self._root}")
        if self._payday:
            self._seats.tell("Starting a chain, with a wallet for each of them.")
            self._payday.begin(self._lifeline)
        addresses = self._first(leave)
        if leave.is_set():
            return ""
        for number in range(2, self._peers + 1):
            self._spawn(number, addresses)
        moved: dict[str, tuple[int, float]] = {}
        while not leave.wait(LOOK_S):
            self._look()
            living = [child for child in self.finishers if child.alive]
            if not living:
                return "Every daemon died."
            missing = (
                [child for child in living if self.tally.reached(child.name) < rounds]
                if rounds
                else living
            )
            if not missing:
                return ""
            late = self._late(missing, moved, patience_s)
            # With a goal, one that does not get there would keep all waiting for ever; without one,
            # the others are still worth watching.
            if late and (rounds or len(late) == len(living)):
                tails = "\n".join(f"  {child.name}:\n{child.tail()}" for child in self._children())
                return f"{', '.join(late)} certified no round for {patience_s:.0f} s. The ends of the logs:\n{tails}"
            self._open_observer(addresses)
        return ""

    def pay(self) -> RewardSummary | None:
        """Settle and claim what those who took part earned; None in a demo without a chain."""
        if self._payday is None:
            return None
        from daemon.demo.settlement_demo import POOL  # noqa: PLC0415  # as in `_payday`

        earners = [
            child.name for child in self.members() if child.alive and self.tally.reached(child.name)
        ]
        try:
            paid = self._payday.pay(earners)
        except (UserError, ChainError) as error:
            self._seats.tell(f"The settlement failed: {error}")
            paid = ()
        return RewardSummary(pool=str(POOL), paid=paid)

    def close(self) -> None:
        """Look once more, then let everybody leave in peace; who does not is killed."""
        self._look()
        for child in self._children():
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in self._children():
            if not child.wait(deadline - time.monotonic()):
                self._seats.tell(
                    f"{child.name} did not leave within {STOP_TIMEOUT_S:.0f} s and was killed. The end of its log:\n{child.tail()}"
                )
                child.kill()

    def _late(
        self, children: list[DemoProcess], moved: dict[str, tuple[int, float]], patience_s: float
    ) -> list[str]:
        """Who has not moved for too long. `moved` keeps how far each was, and since when."""
        now = time.monotonic()
        for child in children:
            reached = self.tally.reached(child.name)
            if child.name not in moved or moved[child.name][0] != reached:
                moved[child.name] = (reached, now)
        return [child.name for child in children if now - moved[child.name][1] > patience_s]

    def _children(self) -> list[DemoProcess]:
        others = [self._observer, self._payday.devnet if self._payday else None]
        return [*self._daemons, *(child for child in others if child is not None)]

    def _spawn(self, number: int, join: tuple[str, ...]) -> DemoProcess:
        name = f"node-{number}"
        child = DemoProcess(name, self._root / name)
        self._daemons.append(child)
        settings: dict[str, dict[str, object]] = {
            "node": {"name": name},
            "network": {"listen_host": LOOPBACK},
            "worker": {"threads": max(1, (os.cpu_count() or 1) // self._peers)},
        }
        if self._payday:
            settings["chain"] = self._payday.settings()
        arguments = ["start", *(part for address in join for part in ("--join", address))]
        if self._run_file and not join:
            arguments += ["--run", str(self._run_file)]
        if self._payday:
            arguments += self._payday.arguments()
        child.start(self._lifeline, settings, arguments)
        return child

    def _first(self, leave: StopRequest) -> tuple[str, ...]:
        """Start the first daemon; returns the addresses that the others join."""
        child = self._spawn(1, ())
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not leave.wait(LOOK_S / 4):
            status = child.status()
            if status is not None and status.you.addresses:
                return (
                    tuple(address for address in status.you.addresses if f"/{LOOPBACK}/" in address)
                    or status.you.addresses
                )
            if not child.alive or time.monotonic() > deadline:
                how = (
                    f"it {child.ending}"
                    if not child.alive
                    else f"it was not up after {UP_TIMEOUT_S:.0f} s"
                )
                raise UserError(
                    "DEMO_START",
                    "The first daemon did not come up.",
                    why=f"{how}; the end of its log:\n{child.tail()}",
                )
        return ()

    def _look(self) -> None:
        statuses: Mapping[str, Status | None] = {
            child.name: child.status() if child.alive else None for child in self._daemons
        }
        for certified in self.tally.take(statuses):
            self._seats.certified(certified, self._peers)
        for child in self._daemons:
            if not child.alive and child.name not in self._mourned:
                self._mourned.add(child.name)
                self._seats.tell(
                    f"{child.name} {child.ending}; the others go on. The end of its log:\n{child.tail()}"
                )
        if self._observer and not self._page_told and (page := self._observer.url()):
            self._seats.tell(f"The page of this swarm: {page}/")
            self._page_told = True
        self._seats.show(statuses)

    def _open_observer(self, join: tuple[str, ...]) -> None:
        """Once every living daemon has said something: the machine's cores are theirs until then."""
        if self._observer or not all(self.tally.heard(child.name) for child in self.finishers):
            return
        self._observer = DemoProcess("observer", self._root / "observer")
        settings: dict[str, dict[str, object]] = {
            "network": {"listen_host": LOOPBACK},
            "observer": {"host": LOOPBACK, "port": 0},
        }
        arguments = ["observe", *(part for address in join for part in ("--join", address))]
        self._observer.start(self._lifeline, settings, arguments)


def _payday(
    root: Path,
    run_file: Path | None,
    peers: int,
    leave: StopRequest,
    seats: ProgressOutput,
    anvil: bool,
) -> SettlementDemo:
    """Raises `UserError("MANIFEST")` for a run that names a chain of its own."""
    from daemon.demo.settlement_demo import SettlementDemo  # noqa: PLC0415  # web3: two seconds that a demo without a chain does not pay

    if load_or_bundled_manifest(run_file).chain != "none":
        raise UserError(
            "MANIFEST",
            "That run names a chain of its own.",
            why="a demo settles on one that it starts itself",
            fix="leave out --chain",
            exit_code=2,
        )
    return SettlementDemo(
        root, [f"node-{number}" for number in range(1, peers + 1)], leave, seats.tell, anvil=anvil
    )


def _text_of(run_file: Path | None) -> str:
    return run_file.read_text(encoding="utf-8") if run_file else bundled_text()
