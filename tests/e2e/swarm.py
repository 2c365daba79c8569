"""A swarm of real daemons for a test: started, killed, restarted and watched from outside.

    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(3, first, second)

Leaving the block kills what still runs. A test that failed prints the end of every log. A test that
leaves a process behind fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from daemon.config.settings import PREFIX
from daemon.demo.agreement import Agreement, compare_anchors
from daemon.demo.process import DemoProcess, Lifeline
from daemon.home.invitations import Entry, Terms, make_invitation
from daemon.home.layout import KEY_FILE
from daemon.home.recent_state import kept_manifest
from protocol.identity import Signer
from protocol.membership.invitation import MAX_USES
from protocol.messages.membership import MAX_VOTERS
from protocol.status import RoundSummary, Status
from tests.e2e.processes import Process, descendants, process, still_running, until

LOOPBACK = "127.0.0.1"
# Until the worker's first step: 4 s on an idle machine; on a busy one, torch alone takes 10 s.
UP_S = 90.0
# Time for a round or two. Rounds last 2 s here, and a failed view costs up to 10 s.
ROUND_S = 60.0
# A daemon stops within 20 s of a request, whatever it does.
STOP_S = 25.0

RUN = """
name = "small-digits"
task = "simple_cnn"
seed = 7
[task_options]
width = 4
[inner]
learning_rate = 1e-3
batch_size = 8
[round]
seconds = {seconds}
ready_s = 1.5
scatter_s = 6.0
gather_s = 6.0
vote_s = 3.0
"""
"""10,000 parameters: one chunk border, thousands of steps a round, short deadlines."""


class Daemon(DemoProcess):
    """One `hypergpud` process, observed from outside."""

    def process(self) -> Process:
        """Return the node process."""
        return process(self.pid)

    def family(self) -> list[Process]:
        """Return the node process and everything that it started."""
        return [self.process(), *descendants(self.pid)]

    def now(self) -> Status:
        """Its status now, or as soon as it has started."""

        def look() -> Status | None:
            assert self.alive, f"{self.name} {self.ending}"
            status = self.status()
            # The daemon answers before it listens, and then has no address.
            return status if status is not None and status.you.addresses else None

        status = until(look, f"{self.name} answers", UP_S)
        assert status is not None
        return status

    def runs_on(self, machine: Machine) -> None:
        """Run on `machine` from the next start on."""
        self._prefix = machine.prefix

    def kill_alone(self) -> None:
        """`kill -9` the node process alone."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.wait(10.0)

    @property
    def peer(self) -> str:
        """Its peer id; empty before it has a key."""
        file = self.home / KEY_FILE
        return Signer(file.read_bytes()).peer if file.exists() else ""

    def invite(self, run: str, addresses: Sequence[str]) -> str:
        """Return an invitation of this daemon, the run's owner, that never runs out."""
        signed = kept_manifest(self.home, bytes.fromhex(run))
        assert signed is not None
        signer = Signer((self.home / KEY_FILE).read_bytes())
        entry = Entry(addresses=tuple(addresses), certificate=signed.run)
        terms = Terms(uses=MAX_USES, voters=MAX_VOTERS)
        return make_invitation(self.home, signed, signer, entry, terms, time.time()).token

    def anchors(self, run: str) -> list[int]:
        """Return the rounds of its checkpoints, oldest first."""
        return sorted(
            int(file.name.partition("-")[0])
            for file in self.home.glob(f"runs/{run}/checkpoints/*.safetensors")
        )

    def log(self) -> str:
        """Everything that it printed."""
        return (self.home / "output.log").read_text(encoding="utf-8", errors="replace")


class Machine(NamedTuple):
    """Where a daemon runs: its address, and the prefix of a command that runs there."""

    host: str = LOOPBACK
    prefix: tuple[str, ...] = ()


class Swarm:
    """Daemons in homes under `root`, on loopback or each on a machine of its own."""

    def __init__(
        self,
        root: Path,
        *,
        round_s: float = 2.0,
        run: str = RUN,
        nice: int = 10,
        machines: Sequence[Machine] = (),
    ) -> None:
        """`nice` is the niceness of the workers.

        A test has more nodes than cores, so workers leave the cores to the nodes. The daemons use
        `machines` in order.
        """
        self.root = root
        self.run_file = root / "run.toml"
        self.run_file.write_text(run.format(seconds=round_s), encoding="utf-8")
        self.daemons: list[Daemon] = []
        self._lifeline = Lifeline()
        self._seen: set[Process] = set()
        self._nice = nice
        self._machines = machines

    def __enter__(self) -> Swarm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for daemon in self.daemons:
            if daemon.alive:
                self._seen.update(daemon.family())
        for daemon in self.daemons:
            daemon.kill()
        self._lifeline.close()
        if error is not None:
            for daemon in self.daemons:
                if not daemon.home.exists():
                    continue
                print(f"--- {daemon.name} {daemon.ending}\n{daemon.log()[-6000:]}")
        until(lambda: not still_running(self._seen), "all processes of the swarm have ended", 10.0)

    def begin(self, name: str = "first", **settings: Mapping[str, object]) -> Daemon:
        """Start a daemon that begins the run and joins no peer."""
        return self._start(name, ["start", "--run", str(self.run_file)], settings)

    def join(self, name: str, *others: Daemon, **settings: Mapping[str, object]) -> Daemon:
        """Start a daemon that knows only the addresses of others."""
        return self._start(name, ["start", *self._addresses(others)], settings)

    def join_by(self, token: str, name: str, **settings: Mapping[str, object]) -> Daemon:
        """Start a daemon that knows only an invitation."""
        return self._start(name, ["start", "--join", token], settings)

    def restart(self, daemon: Daemon, *others: Daemon) -> None:
        """Restart a daemon that ended, in its own home.

        Without `others` it begins the run again.
        """
        arguments = self._addresses(others) if others else ["--run", str(self.run_file)]
        daemon.start(self._lifeline, {}, ["start", *arguments])

    def restart_without_arguments(self, daemon: Daemon) -> None:
        """Restart a daemon that ended with `hypergpud start` and no arguments."""
        daemon.start(self._lifeline, {}, ["start"])

    def restart_joining(self, daemon: Daemon, address: str) -> None:
        """Restart a daemon that ended, joining `address`, where a peer may not answer."""
        daemon.start(self._lifeline, {}, ["start", "--join", address])

    def observe(self, name: str, *others: Daemon) -> Daemon:
        """Start an observer; it prints the address of its page."""
        return self._start(
            name, ["observe", *self._addresses(others)], {"observer": {"host": LOOPBACK, "port": 0}}
        )

    def _addresses(self, others: Sequence[Daemon]) -> list[str]:
        """Return the arguments that join `others`: their addresses, in an invitation if need be."""
        addresses = [other.now().you.addresses[0] for other in others]
        run = others[0].now().run
        owner = next((one for one in self.daemons if one.peer == run.owner), None)
        if run.admits != "invite" or owner is None:
            return [part for address in addresses for part in ("--join", address)]
        return ["--join", owner.invite(run.run, addresses)]

    def _start(
        self, name: str, arguments: Sequence[str], settings: Mapping[str, Mapping[str, object]]
    ) -> Daemon:
        machine = self._machines[len(self.daemons)] if self._machines else Machine()
        daemon = Daemon(name, self.root / name, machine.prefix)
        self.daemons.append(daemon)
        usual: dict[str, Mapping[str, object]] = {
            "node": {"name": name},
            "network": {"listen_host": machine.host},
            "page": {"enabled": False},
            "worker": {"threads": 1, "nice": self._nice, "device": "cpu"},
        }
        daemon.start(self._lifeline, usual | settings, arguments)
        return daemon

    def until(self, happened: Callable[[], object], what: str, limit_s: float = ROUND_S) -> None:
        """Wait until `happened` returns something true; a daemon that dies fails the test."""
        living = [daemon for daemon in self.daemons if daemon.alive]

        def look() -> object:
            for daemon in living:
                assert daemon.alive, f"while waiting until {what}: {daemon.name} {daemon.ending}"
            return happened()

        until(look, what, limit_s)

    def until_round(self, number: int, *daemons: Daemon, limit_s: float = UP_S) -> None:
        """Wait until all `daemons` hold the anchor of certificate `number` or a later one."""

        def reached() -> bool:
            return all(
                (status := daemon.status()) is not None and status.run.number >= number
                for daemon in daemons
            )

        self.until(
            reached, f"{', '.join(daemon.name for daemon in daemons)} reach round {number}", limit_s
        )

    def stop(self, *daemons: Daemon) -> None:
        """Stop `daemons`; assert that they end with exit code 0 and leave no process behind."""
        family = [one for daemon in daemons for one in daemon.family()]
        for daemon in daemons:
            daemon.ask_to_stop()
        for daemon in daemons:
            assert daemon.wait(STOP_S), f"{daemon.name} did not stop"
            assert daemon.ending == "ended with exit code 0", f"{daemon.name} {daemon.ending}"
        until(
            lambda: not still_running(family),
            "all processes of the stopped daemons have ended",
            5.0,
        )

    def agreement(self, *daemons: Daemon) -> Agreement:
        """Compare the anchors of `daemons` byte for byte, from their files.

        Stop the daemons first, so that no file changes during the comparison.
        """
        return compare_anchors([daemon.home for daemon in daemons], self.run_id(daemons[0]))

    def run_id(self, daemon: Daemon) -> str:
        """Return the run's id in hex, as the daemon's home has it."""
        (folder,) = (daemon.home / "runs").iterdir()
        return folder.name


def certified(status: Status) -> dict[int, RoundSummary]:
    """Return the certified rounds that a status shows, by number."""
    return {known.number: known for known in status.rounds if known.certificate}


def hypergpud(
    *arguments: str, home: Path, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user types it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    command = [sys.executable, "-m", "daemon.cli.main", *arguments, "--home", str(home)]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False
    )
