"""Fixtures of both chains: the embedded EVM, and anvil where `make anvil` installed it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.testnet_controls import ControlledTestnet
from tests.contracts.testnets import ANVIL, NO_ANVIL, AnvilTestnet, EvmTestnet, anvil

ON_ANVIL = pytest.param(
    "anvil", marks=[pytest.mark.real, pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL)]
)


@pytest.fixture(scope="module")
def running_anvil() -> Iterator[AnvilTestnet]:
    with anvil() as testnet:
        yield testnet


@pytest.fixture(params=["evm", ON_ANVIL])
def testnet(request: pytest.FixtureRequest) -> ControlledTestnet:
    """A fresh chain that makes a block for each transaction."""
    if request.param == "evm":
        return EvmTestnet()
    running: AnvilTestnet = request.getfixturevalue("running_anvil")
    running.reset()
    return running
