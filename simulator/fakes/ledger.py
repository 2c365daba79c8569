"""A chain in memory without its contracts: blocks and transactions on a test's clock.

A block comes every `block_s` of the clock, whenever somebody looks. What a transaction does is
defined by the client (`chain.py`). A test can also make the chain fail.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import msgspec

from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.chain.keccak import Address, keccak256
from protocol.chain.port import (
    AgentStatus,
    ChainHead,
    Hash,
    Proposal,
    RunStatus,
    SentTransaction,
    SettledTransaction,
)

# The gas of every transaction: what a real heartbeat costs.
GAS = 50_000


class FakeChainState(msgspec.Struct, kw_only=True):
    """All that the chain stores."""

    agents: dict[Address, AgentStatus] = {}
    # When each account registered and sent heartbeats.
    heard: dict[Address, tuple[int, ...]] = {}
    payouts: dict[Address, Address] = {}
    balances: dict[Address, int] = {}
    # By owner and run.
    runs: dict[tuple[Address, Hash], RunStatus] = {}
    pool: int = 0
    claimed: dict[Address, int] = {}
    votes: dict[Address, Proposal] = {}
    active: Proposal | None = None
    pending: Proposal | None = None
    # When the pending root's delay ends. The delay stops while the pool is paused, since
    # `paused_at_s`.
    ends_at_s: int = 0
    paused_at_s: int = 0
    # Settlers that cannot dispute again before the next root is active.
    disputed: set[Address] = set()
    paused: bool = False
    # What agents recorded at 0x20, by account and content.
    served: set[str] = set()

    def ready_at_s(self, at_s: int) -> int:
        """When the pending root can be activated, as of `at_s`."""
        still = self.paused and self.ends_at_s > self.paused_at_s
        return self.ends_at_s + at_s - self.paused_at_s if still else self.ends_at_s


Change = Callable[[FakeChainState, int], None]
"""Applies a transaction at a time; raises `ChainRefused` where a contract would revert."""


class _PendingTransaction(msgspec.Struct, kw_only=True):
    sent: SentTransaction
    subject: str
    sender: Address
    change: Change
    at_s: float


class FakeLedger:
    """Blocks and pending transactions.

    While `unreachable` is set, nobody answers. While `stopped` is set, the chain answers and makes
    no blocks.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        owner: Address,
        settlers: Sequence[Address],
        needed: int,
        epoch_s: int = 3600,
        delay_s: int = 600,
        block_s: float = 2.0,
        funded: dict[Address, int] | None = None,
    ) -> None:
        self.unreachable = False
        self.stopped = False
        self.owner = owner
        self.settlers = tuple(settlers)
        self.needed = needed
        self.epoch_s = epoch_s
        self.delay_s = delay_s
        self.state = FakeChainState(balances=dict(funded or {}))
        self._now = now
        self._start_s = int(now())
        self._block_s = block_s
        self._number = 0
        self._at_s = int(now())
        self._pending: list[_PendingTransaction] = []
        self._ended: dict[SentTransaction, tuple[Address, SettledTransaction]] = {}
        self._nonces: dict[Address, int] = {}

    def look(self) -> None:
        """Makes the blocks that are due. Raises `ChainUnreachable`."""
        if self.unreachable:
            raise ChainUnreachable("nobody answers")
        if self.stopped:
            return
        for each in [each for each in self._pending if self._now() >= each.at_s + self._block_s]:
            self._pending.remove(each)
            self._number += 1
            about = SettledTransaction(
                sent=each.sent, done=True, hash=each.sent.hash, block=self._number, gas=GAS, fee=GAS
            )
            draft = copy.deepcopy(self.state)
            try:
                each.change(draft, self.now_s())
            except ChainRefused as refused:
                about = msgspec.structs.replace(about, done=False, reason=refused.reason)
            else:
                self.state = draft
            self._ended[each.sent] = (each.sender, about)
        blocks = int((self._now() - self._at_s) // self._block_s)
        self._number += blocks
        self._at_s += int(blocks * self._block_s)

    def now_s(self) -> int:
        return int(self._now())

    def epoch(self) -> int:
        return (self.now_s() - self._start_s) // self.epoch_s

    def epoch_ends_at_s(self) -> int:
        return self._start_s + (self.epoch() + 1) * self.epoch_s

    def head(self, chain_id: int) -> ChainHead:
        return ChainHead(
            chain_id=chain_id,
            number=self._number,
            hash=keccak256(self._number.to_bytes(8, "big")),
            at_s=self._at_s,
        )

    def send(self, sender: Address, kind: str, subject: str, change: Change) -> SentTransaction:
        self.look()
        for each in self._pending:
            if (each.sender, each.sent.kind, each.subject) == (sender, kind, subject):
                return each.sent
        # A real client estimates the gas, which fails in the same way.
        change(copy.deepcopy(self.state), self.now_s())
        nonce = self._nonces.get(sender, 0)
        self._nonces[sender] = nonce + 1
        sent = SentTransaction(
            kind=kind, nonce=nonce, hash="0x" + keccak256(f"{sender} {nonce}".encode()).hex()
        )
        self._pending.append(
            _PendingTransaction(
                sent=sent, subject=subject, sender=sender, change=change, at_s=self._now()
            )
        )
        return sent

    def pending(self, sender: Address) -> tuple[SentTransaction, ...]:
        return tuple(each.sent for each in self._pending if each.sender == sender)

    def ended(self, sender: Address) -> tuple[SettledTransaction, ...]:
        self.look()
        mine = [sent for sent, (who, _) in self._ended.items() if who == sender]
        return tuple(self._ended.pop(sent)[1] for sent in mine)
