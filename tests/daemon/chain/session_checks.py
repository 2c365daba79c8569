"""Checks of what the session commands print and of what the chain then holds."""

from __future__ import annotations

from pathlib import Path

from protocol.chain.port import RunStatus
from protocol.run.manifest import seal
from tests.daemon.chain.command_runner import CommandResult, CommandRunner
from tests.protocol.settlement.paid import PAID, PAID_RUN, wallet

ANNA, BERT, CARO = range(3)
PUBLISHED = seal(PAID).published
CONTRACT = Path(__file__).parents[3] / "contracts" / "src" / "sessions.vy"


def says(result: CommandResult, code: int, *words: str) -> None:
    assert result.code == code, result.err
    for word in words:
        assert word in result.err, result.err


def on_chain(commands: CommandRunner) -> RunStatus:
    return commands.world.client(None).run(PAID_RUN, wallet(ANNA).address)


def session(result: CommandResult) -> dict[str, object]:
    found = result.record["session"]
    assert isinstance(found, dict)
    return found
