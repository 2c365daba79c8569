"""What every `Chain` must do. The fake and the real client on the real contracts run these tests.

A test module subclasses `ChainSuite` and provides the fixture `testnet` with a fresh chain. Its
epochs take `EPOCH_S`, its dispute delay is `DELAY_S`, and two of its three settlers decide. It has
an owner, and accounts with money.
"""

from __future__ import annotations

from tests.ports.chain_dispute_suite import ChainDisputeSuite
from tests.ports.chain_pool_suite import ChainPoolSuite
from tests.ports.chain_registry_suite import ChainRegistrySuite
from tests.ports.chain_session_suite import ChainSessionSuite


class ChainSuite(ChainRegistrySuite, ChainPoolSuite, ChainDisputeSuite, ChainSessionSuite):
    """Inherit, and provide the fixture."""
