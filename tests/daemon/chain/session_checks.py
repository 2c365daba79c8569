"""Checks of what the session commands print and of what the chain then holds."""

from __future__ import annotations

from pathlib import Path

from protocol.chain.port import RunStatus
from protocol.run.manifest import seal
from tests.daemon.chain.stage import Said, Stage
from tests.protocol.settlement.paid import PAID, PAID_RUN, wallet

ANNA, BERT, CARO = range(3)
PUBLISHED = seal(PAID).published
CONTRACT = Path(__file__).parents[3] / "contracts" / "src" / "sessions.vy"


def says(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said.err
    for word in words:
        assert word in said.err, said.err


def on_chain(stage: Stage) -> RunStatus:
    return stage.world.client(None).run(PAID_RUN, wallet(ANNA).address)


def session(said: Said) -> dict[str, object]:
    found = said.record["session"]
    assert isinstance(found, dict)
    return found
