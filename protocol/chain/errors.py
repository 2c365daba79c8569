"""What can go wrong with a chain.

ChainError
├── ChainUnreachable  no endpoint gives a usable answer; nothing is known, so ask again later
├── ChainRefused      the chain refuses, with a reason "module: reason"; repeating the request does
                      not help
├── WrongChain        another chain answers than the run names (its id, or no code behind an
                      address); nothing was sent
└── ChainPending      a transaction was sent and is not settled yet; it may still be, so nothing may
                      be sent twice for it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.errors import HyperGPUError

if TYPE_CHECKING:
    from protocol.chain.port import SentTransaction


class ChainError(HyperGPUError):
    """Base of a chain's errors. Training continues unpaid, and says so."""


class ChainUnreachable(ChainError):
    """No endpoint gave a usable answer."""


class ChainRefused(ChainError):
    """The chain refused.

    `reason` is the contract's own "module: reason", or the node's words if there is none.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chain refused: {reason}")
        self.reason = reason


class WrongChain(ChainError):
    """Another chain answered. The message says which was expected and which was found."""


class ChainPending(ChainError):
    """A transaction is not settled within the given time. `sent` identifies it."""

    def __init__(self, sent: SentTransaction, waited_s: float) -> None:
        super().__init__(
            f"{sent.kind} ({sent.hash}) is not settled after {waited_s:g} s; it may still be"
        )
        self.sent = sent
