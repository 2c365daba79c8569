"""How transactions end, for those who wait and for those who ask later.

Several callers share one account, and the first look finds how a transaction ended. The tracker
keeps the ends, so that each caller learns its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

from contracts.transaction_sender import TransactionSender
from protocol.chain.errors import ChainPending, ChainRefused, ChainUnreachable
from protocol.chain.port import SentTransaction, SettledTransaction

# Between two looks of a caller that waits; blocks come every 2 to 3 s.
POLL_S = 1.0
# Ends that are kept: twice the commands that may wait at once, which all can end in one block.
MAX_ENDED = 256


class TransactionTracker:
    """Follows the transactions of one account. Without a sender there are none."""

    def __init__(
        self,
        sender: TransactionSender | None,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._sender = sender
        self._now, self._sleep = now, sleep
        # One look at a time: between a look's answer and its record, a transaction is neither in
        # flight nor ended, and another thread that waits would take it for forgotten.
        self._looking = Lock()
        # Ends that a `wait` may still ask for.
        self._ended: deque[SettledTransaction] = deque(maxlen=MAX_ENDED)
        # Ends that a `wait` found and that `reconcile` has not returned yet.
        self._unreported: deque[SettledTransaction] = deque(maxlen=MAX_ENDED)

    def pending(self) -> tuple[SentTransaction, ...]:
        """Return what is in flight."""
        return () if self._sender is None else self._sender.pending()

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        """Look at everything in flight, and return each end once. Raises `ChainUnreachable`."""
        with self._looking:
            ended = self._look()
            reported = (*self._unreported, *ended)
            self._unreported.clear()
        return reported

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        """Return how a transaction ended.

        Raises:
            ChainPending: it did not end within `timeout_s`.
            ChainUnreachable: the time is over, and the last look got no answer.
            ChainRefused: it is not in flight, and its end is no longer kept.
        """
        deadline = self._now() + timeout_s
        while True:
            problem: ChainUnreachable | None = None
            with self._looking:
                try:
                    self._unreported.extend(self._look())
                except ChainUnreachable as error:
                    problem = error
                ended = next((each for each in self._ended if each.sent == sent), None)
                is_lost = ended is None and problem is None and sent not in self.pending()
            if ended is not None:
                return ended
            if is_lost:
                raise ChainRefused(
                    f"client: {sent.kind} ({sent.hash}) is not in flight, and its end is forgotten"
                )
            if self._now() >= deadline:
                raise problem or ChainPending(sent, timeout_s)
            self._sleep(POLL_S)

    def _look(self) -> tuple[SettledTransaction, ...]:
        """Find the transactions that ended. The caller holds `_looking`."""
        if self._sender is None:
            return ()
        ended = self._sender.reconcile()
        # A reorganization may have taken a transaction out after it ended; then that end is void.
        if self._ended:
            in_flight = self._sender.pending()
            self._ended = deque(
                (each for each in self._ended if each.sent not in in_flight), MAX_ENDED
            )
        self._ended.extend(ended)
        return ended
