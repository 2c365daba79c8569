"""Journal events of the chain: this node's account, and the registrations of its peers."""

from __future__ import annotations

from typing import ClassVar

from protocol.identity import PeerId
from protocol.journal.base import JournalEvent


class ChainReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node's relation to the run's chain.

    `state` is one of:

    none     the run names a chain, but this node is not set up for it
    locked   this node has no password for its wallet
    waiting  this node has not asked the chain yet
    down     the chain is unreachable
    refused  the chain refused
    wrong    the endpoint serves another chain than the run's
    live     this node is registered, and its last heartbeat was read back
    """

    profile: str
    state: str
    account: str = ""
    payout: str = ""
    # Cumulative samples of the last heartbeat.
    samples: int = 0
    # Base units as text, because they exceed the integers that JSON readers keep exact.
    claimed: str = ""
    reason: str = ""


class RewardsReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """What the run's chain holds: its pool, and this node's account where it has one.

    Amounts are base units as text, because they exceed the integers that JSON readers keep exact.
    Times are the chain's, in unix seconds; 0 for none.
    """

    profile: str
    # What the pool can still pay, and the epoch whose work is being collected.
    pool: str = ""
    epoch: int = 0
    epoch_ends_at_s: int = 0
    paused: bool = False
    # When the root that waits for objections becomes claimable.
    pending_at_s: int = 0
    # Empty on a node without a wallet, and on an observer.
    account: str = ""
    payout: str = ""
    earned: str = ""
    claimed: str = ""
    claimable: str = ""
    # What the waiting root adds for the account.
    pending: str = ""
    # When the chain last heard from the account.
    heartbeat_at_s: int = 0
    # What is missing; empty where nothing is.
    note: str = ""
    durable: ClassVar[bool] = False


class PeerRegistered(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's registration changed.

    `state` is a value of `protocol.chain.registration.RegistrationState`.
    """

    peer: PeerId
    state: str
    wallet: str = ""
    reason: str = ""
    durable: ClassVar[bool] = False
