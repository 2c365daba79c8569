"""Runs commands in several homes beside one chain, and captures their output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.chain.certified_totals import CertifiedTotals
from daemon.chain.heartbeater import AgentIdentity, Heartbeater
from daemon.cli.main import run
from protocol.journal import JournalEvent
from protocol.ports.offload import inline
from tests.daemon.chain import paid_homes
from tests.protocol.rounds import people
from tests.protocol.settlement.paid import wallet

ROUNDS = paid_homes.rounds({0: 10, 1: 30}, {0: 10, 1: 10, 2: 20}, {0: 20})


class CommandResult:
    """The exit code and output of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def record(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


class CommandRunner:
    def __init__(
        self, root: Path, world: paid_homes.World, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.root, self.world, self._capfd = root, world, capfd
        self.homes: dict[int, Path] = {}

    def home(self, i: int, rounds: int = 2, payout: str | None = None) -> Path:
        self.homes[i] = paid_homes.home(self.root, i, self.world.url, ROUNDS[:rounds], payout)
        return self.homes[i]

    def run(self, i: int, *words: str) -> CommandResult:
        self._capfd.readouterr()
        code = run(["--home", str(self.homes[i]), *words])
        out, err = self._capfd.readouterr()
        return CommandResult(code, out, err)

    def share_dataset(self, source: int, target: int) -> None:
        """Copy data sets between homes, as the swarm does."""
        for file in (self.homes[source] / "settlements").iterdir():
            folder = self.homes[target] / "settlements"
            folder.mkdir(exist_ok=True)
            (folder / file.name).write_bytes(file.read_bytes())

    def heartbeater(
        self, i: int, payout: str | None = None
    ) -> tuple[Heartbeater, list[JournalEvent], CertifiedTotals]:
        figures, events = CertifiedTotals(people(4)[i].peer), list[JournalEvent]()
        heartbeater = Heartbeater(
            open_chain=lambda: self.world.client(wallet(i).private_key()),
            identity=AgentIdentity(name=f"node {i}", payout=payout),
            figures=lambda: figures.now,
            offload=inline,
            record=events.append,
            jitter=lambda: 0.0,
        )
        return heartbeater, events, figures

    def heartbeat(self, i: int, rounds: int = 2, payout: str | None = None) -> None:
        heartbeater, _, figures = self.heartbeater(i, payout)
        figures.add(ROUNDS[:rounds])
        report = heartbeater.send_heartbeat()
        assert (report.state, report.reason) == ("live", "")
