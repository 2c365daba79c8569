"""One account's transactions on the fake chain, from sending to settlement."""

from __future__ import annotations

from collections.abc import Callable

from protocol.chain.errors import ChainPending, ChainRefused, ChainUnreachable
from protocol.chain.keccak import Address
from protocol.chain.port import SentTransaction, SettledTransaction
from simulator.fakes.ledger import FakeLedger


class FakeTransactions:
    """Tracks the transactions of one account. `sleep` moves the clock on while something waits."""

    def __init__(
        self, ledger: FakeLedger, account: Address, sleep: Callable[[float], None]
    ) -> None:
        self._ledger, self._account, self._sleep = ledger, account, sleep
        self._ended: list[SettledTransaction] = []
        # Settled while `wait` looked, and not reported by `reconcile` yet.
        self._unreported: list[SettledTransaction] = []

    def pending(self) -> tuple[SentTransaction, ...]:
        return self._ledger.pending(self._account)

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        ended = self._look()
        reported = (*self._unreported, *ended)
        self._unreported.clear()
        return reported

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        waited = 0.0
        while True:
            problem: ChainUnreachable | None = None
            try:
                self._unreported.extend(self._look())
            except ChainUnreachable as error:
                problem = error
            for each in self._ended:
                if each.sent == sent:
                    return each
            if problem is None and sent not in self.pending():
                raise ChainRefused(
                    f"client: {sent.kind} ({sent.hash}) is not in flight, and how it ended "
                    "is forgotten"
                )
            if waited >= timeout_s:
                raise problem or ChainPending(sent, timeout_s)
            self._sleep(1.0)
            waited += 1.0

    def _look(self) -> tuple[SettledTransaction, ...]:
        ended = self._ledger.ended(self._account)
        self._ended.extend(ended)
        return ended
