"""The real client on the real contracts passes the suite of `Chain`.

The chains are the embedded EVM, and anvil where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.testnets import ANVIL, NO_ANVIL, AnvilTestnet, EvmTestnet, anvil
from tests.ports.chain_kit import LocalTestnet
from tests.ports.chain_suite import ChainSuite


class TestOnTheEmbeddedEvm(ChainSuite):
    @pytest.fixture
    def testnet(self) -> LocalTestnet:
        return EvmTestnet()


@pytest.fixture(scope="module")
def running() -> Iterator[AnvilTestnet]:
    with anvil() as testnet:
        yield testnet


@pytest.mark.real
@pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL)
class TestOnAnvil(ChainSuite):
    @pytest.fixture
    def testnet(self, running: AnvilTestnet) -> LocalTestnet:
        running.reset()
        return running
