"""What is said to a chain and what it says: the records of the `Chain` port, and what can go wrong with one.

ChainError
├── ChainUnreachable   no endpoint answers, or what it answers is no answer; nothing is known, ask again later
├── ChainRefused       the chain says no, with a reason "module: reason"; saying the same again helps nobody
├── WrongChain         it answers, and it is not the chain the run names (id, or no code behind an address): nothing was sent
└── ChainPending       it was sent and is not settled yet; it may still be, and nothing may be sent twice for it

Amounts are integers in the chain's base units. Times are the chain's, in unix seconds.
"""

from __future__ import annotations

import msgspec

from protocol.errors import HyperGPUError
from protocol.keccak import ZERO_ADDRESS, Address

Hash = bytes
"""32 bytes."""

NO_HASH: Hash = bytes(32)


class ChainError(HyperGPUError):
    """Base of what a chain can do to us. Training goes on, unpaid and saying so."""


class ChainUnreachable(ChainError):
    """No endpoint gave an answer that can be understood."""


class ChainRefused(ChainError):
    """The chain would not do it. `reason` is the contract's own "module: reason", or the node's words where it has none."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chain refused: {reason}")
        self.reason = reason


class WrongChain(ChainError):
    """Not the chain that was named; the message says what was expected and what was found."""


class ChainPending(ChainError):
    """Sent, and not settled within the time that was given. `sent` is what to ask for again."""

    def __init__(self, sent: Sent, waited_s: float) -> None:
        super().__init__(f"{sent.kind} ({sent.hash}) is not settled after {waited_s:g} s; it may still be")
        self.sent = sent


class ChainHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest block: its number, hash and time."""

    chain_id: int
    number: int
    hash: Hash
    at_s: int


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says of an account. `active`: registered, and heard of within the heartbeat timeout. All zero when it is not registered.

    `samples` and `certificate` are what its last heartbeat carried; 0 and zeros where the chain keeps neither (plumise).
    """

    address: Address
    registered: bool = False
    active: bool = False
    name: str = ""
    last_heartbeat_s: int = 0
    registered_at_s: int = 0
    payout: Address = ZERO_ADDRESS
    samples: int = 0
    certificate: Hash = NO_HASH
    rewards: int = 0  # paid so far, base units


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A cumulative root: everything earned up to the end of `epoch`. `total` is the sum of its leaves, `data` digests the published data set."""

    epoch: int
    root: Hash
    total: int
    data: Hash = NO_HASH


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The reward pool. `pending` has the settlers' majority and waits until `ready_at_s`, when anyone may activate it."""

    balance: int
    claimed: int  # paid out in all
    epoch: int  # the one that is running; only earlier ones can be settled
    epoch_s: int  # length
    epoch_ends_at_s: int
    paused: bool
    needed: int  # settlers that must propose the same root
    settlers: tuple[Address, ...]
    active: Proposal | None = None
    pending: Proposal | None = None
    ready_at_s: int = 0


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A run on the chain. `state` is "none", "created", "active", "completed" or "cancelled"."""

    run: Hash
    state: str = "none"
    owner: Address = ZERO_ADDRESS
    manifest: Hash = NO_HASH
    certificate: Hash = NO_HASH


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was signed and written down, and so will be seen through, also by the next process. `kind` is the port's method.

    `hash` is the first transaction's ("0x" and 64 digits); another one with the same nonce may take its place at a higher fee.
    """

    kind: str
    nonce: int
    hash: str


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """How something sent ended. `done`: it is in the chain and its effect was read back. Otherwise `reason` says what became of it."""

    sent: Sent
    done: bool
    hash: str = ""  # of the transaction that made it
    block: int = 0
    gas: int = 0
    fee: int = 0  # base units
    reason: str = ""
