"""The real client on the real contracts passes the suite of `Chain`.

The chains are the embedded EVM, and anvil where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.ground import ANVIL, NO_ANVIL, AnvilGround, EvmGround, anvil
from tests.ports.chain_kit import Ground
from tests.ports.chain_suite import ChainSuite


class TestOnTheEmbeddedEvm(ChainSuite):
    @pytest.fixture
    def ground(self) -> Ground:
        return EvmGround()


@pytest.fixture(scope="module")
def running() -> Iterator[AnvilGround]:
    with anvil() as ground:
        yield ground


@pytest.mark.real
@pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL)
class TestOnAnvil(ChainSuite):
    @pytest.fixture
    def ground(self, running: AnvilGround) -> Ground:
        running.reset()
        return running
