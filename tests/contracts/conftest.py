"""Fixtures of both chains: the embedded EVM, and anvil where `make anvil` installed it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.ground import ANVIL, NO_ANVIL, AnvilGround, EvmGround, anvil
from tests.contracts.levers import Levers

ON_ANVIL = pytest.param(
    "anvil", marks=[pytest.mark.real, pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL)]
)


@pytest.fixture(scope="module")
def running_anvil() -> Iterator[AnvilGround]:
    with anvil() as ground:
        yield ground


@pytest.fixture(params=["evm", ON_ANVIL])
def ground(request: pytest.FixtureRequest) -> Levers:
    """A fresh chain that makes a block for each transaction."""
    if request.param == "evm":
        return EvmGround()
    running: AnvilGround = request.getfixturevalue("running_anvil")
    running.reset()
    return running
