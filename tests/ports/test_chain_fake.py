"""The chain in memory passes the suite of `Chain`."""

from __future__ import annotations

import pytest

from protocol.chain.keccak import Address, address_of, keccak256
from protocol.chain.port import Chain
from simulator.fakes.chain import FakeChain
from simulator.fakes.ledger import FakeLedger
from tests.ports.chain_kit import DELAY_S, EPOCH_S, OWNER, SETTLERS, LocalTestnet
from tests.ports.chain_suite import ChainSuite


class InMemory:
    def __init__(self) -> None:
        self._now_s = 1_700_000_000.0
        names = (OWNER, *SETTLERS, "anna", "bert")
        self.ledger = FakeLedger(
            lambda: self._now_s,
            owner=self.account(OWNER),
            settlers=[self.account(name) for name in SETTLERS],
            needed=2,
            epoch_s=EPOCH_S,
            delay_s=DELAY_S,
            funded={self.account(name): 10**18 for name in names},
        )
        self._chains: dict[str, FakeChain] = {}

    def chain(self, name: str) -> Chain:
        return self._chains.setdefault(
            name, FakeChain(self.ledger, self.account(name), self._sleep)
        )

    def account(self, name: str) -> Address:
        return address_of(keccak256(name.encode())[12:])

    def advance(self, seconds: int) -> None:
        self._now_s += seconds

    def _sleep(self, seconds: float) -> None:
        self._now_s += seconds

    def pause_mining(self, paused: bool) -> None:
        self.ledger.stopped = paused

    def set_unreachable(self, unreachable: bool) -> None:
        self.ledger.unreachable = unreachable


class TestFakeChain(ChainSuite):
    @pytest.fixture
    def testnet(self) -> LocalTestnet:
        return InMemory()
