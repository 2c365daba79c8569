"""The `Chain` port: what is said to a chain and what it says, and what can go wrong with one.

The real one is in `contracts/`, the fake in `simulator/`; both pass the suite in `tests/ports/`, as
those of `protocol/ports/` do.

ChainError
├── ChainUnreachable   no endpoint answers, or what it answers is no answer; nothing is known, ask again later
├── ChainRefused       the chain says no, with a reason "module: reason"; saying the same again helps nobody
├── WrongChain         it answers, and it is not the chain the run names (id, or no code behind an address): nothing was sent
└── ChainPending       it was sent and is not settled yet; it may still be, and nothing may be sent twice for it

Amounts are integers in the chain's base units. Times are the chain's, in unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from protocol.chain.keccak import ZERO_ADDRESS, Address
from protocol.errors import HyperGPUError

Hash = bytes
"""32 bytes."""

NO_HASH: Hash = bytes(32)


class ChainError(HyperGPUError):
    """Base of what a chain can do to us. Training goes on, unpaid and saying so."""


class ChainUnreachable(ChainError):
    """No endpoint gave an answer that can be understood."""


class ChainRefused(ChainError):
    """The chain would not do it.

    `reason` is the contract's own "module: reason", or the node's words where it has none.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chain refused: {reason}")
        self.reason = reason


class WrongChain(ChainError):
    """Not the chain that was named; the message says what was expected and what was found."""


class ChainPending(ChainError):
    """Sent, and not settled within the time that was given. `sent` is what to ask for again."""

    def __init__(self, sent: SentTransaction, waited_s: float) -> None:
        super().__init__(
            f"{sent.kind} ({sent.hash}) is not settled after {waited_s:g} s; it may still be"
        )
        self.sent = sent


class ChainHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest block: its number, hash and time."""

    chain_id: int
    number: int
    hash: Hash
    at_s: int


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says of an account.

    `active`: registered, and heard of within the heartbeat timeout. All zero when it is not
    registered.

    `samples` and `certificate` are what its last heartbeat carried; 0 and zeros where the chain
    keeps neither (plumise).
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
    """A cumulative root: everything earned up to the end of `epoch`.

    `total` is the sum of its leaves, `data` digests the published data set.
    """

    epoch: int
    root: Hash
    total: int
    data: Hash = NO_HASH

    @property
    def subject(self) -> str:
        """All of it as text: two proposals are the same thing to send only where nothing differs."""
        return f"{self.epoch} {self.root.hex()} {self.total} {self.data.hex()}"


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The reward pool.

    `pending` has the settlers' majority and waits until `ready_at_s`, when anyone may activate it;
    while `paused` that moment moves on with the clock.
    """

    balance: int
    claimed: int  # paid out in all
    # The one that is running; only earlier ones can be settled.
    epoch: int
    epoch_s: int  # length
    epoch_ends_at_s: int
    paused: bool
    needed: int  # settlers that must propose the same root
    settlers: tuple[Address, ...]
    active: Proposal | None = None
    pending: Proposal | None = None
    ready_at_s: int = 0


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One owner's session of a run.

    `state` is "none", "created", "active", "completed" or "cancelled".
    """

    run: Hash
    state: str = "none"
    owner: Address = ZERO_ADDRESS
    manifest: Hash = NO_HASH
    certificate: Hash = NO_HASH


class SentTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was signed and written down, and so will be seen through, also by the next
    process.

    `kind` is the port's method.

    `hash` is the first transaction's ("0x" and 64 digits); another one with the same nonce may take
    its place at a higher fee.
    """

    kind: str
    nonce: int
    hash: str


class SettledTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """How something sent ended.

    `done`: it is in the chain and its effect was read back. Otherwise `reason` says what became of
    it.
    """

    sent: SentTransaction
    done: bool
    hash: str = ""  # of the transaction that made it
    block: int = 0
    gas: int = 0
    fee: int = 0  # base units
    reason: str = ""


class Chain(Protocol):
    """Where contributions are settled.

    `none` is a working default: training never waits for a chain.

    Every method blocks (web3 does): a node calls them through its `Offload`, the command line
    directly. One instance owns its account's nonce, and may be called from several threads. Raises
    `ChainUnreachable`, `ChainRefused` or `WrongChain`, and nothing else for what a chain does.

    What changes the chain returns as soon as it is signed, written down and offered to the chain;
    whether it came to pass is learnt from `reconcile` or `wait`. Guarantees: what was sent is not
    sent again under another nonce, also by the next process; `SettledTransaction.done` means that the effect
    was read back, not that there was a receipt; what a deep reorganization takes out afterwards is
    in `pending` again, and told again. Does not guarantee that anything sent is ever settled.
    """

    @property
    def profile(self) -> str:
        """ "none", "hypergpu" or "plumise"."""

    @property
    def account(self) -> Address:
        """The wallet that signs; `ZERO_ADDRESS` for a chain that can only be read."""

    def head(self) -> ChainHead: ...

    def agent(self, address: Address) -> AgentStatus: ...

    def heard(self, accounts: Sequence[Address], since_s: int, until_s: int) -> frozenset[Address]:
        """Those of `accounts` that registered or beat at a time of the chain from `since_s` on and
        before `until_s`.

        From what the chain keeps for ever, so that everybody is told the same, at any time. Raises
        `ChainRefused` on plumise, which says no events of ours.
        """

    def balance(self, address: Address) -> int: ...

    def pool(self) -> PoolStatus: ...

    def run(self, run: Hash, owner: Address) -> RunStatus:
        """The session that `owner` created of this run: others may have their own, which say
        nothing of this one.
        """

    def claimed(self, address: Address) -> int:
        """Paid out for this account so far."""

    def claimable(self, address: Address, total: int, proof: Sequence[Hash]) -> int:
        """What a claim would pay now; 0 when the proof does not lead to the active root.

        On plumise what the pool says, whatever is given.
        """

    def register(
        self,
        name: str,
        *,
        model: Hash = NO_HASH,
        capabilities: Sequence[Hash] = (),
        agent: Address | None = None,
    ) -> SentTransaction:
        """Once per account. `name` is cut to 32 bytes of UTF-8 between two characters.
        `agent`: somebody else, who approved this account as sponsor."""

    def set_payout(self, payout: Address) -> SentTransaction:
        """Where this account's claims are paid; itself until it says otherwise."""

    def heartbeat(
        self, samples: int, certificate: Hash, *, agent: Address | None = None
    ) -> SentTransaction:
        """Alive, with cumulative certified samples (never fewer than before) and the last
        certificate's hash. plumise: alive, no more.
        """

    def propose(self, proposal: Proposal) -> SentTransaction:
        """For settlers: vote for this root. With enough equal votes it is pending."""

    def dispute(self, proposal: Proposal, reason: str, evidence: Hash = NO_HASH) -> SentTransaction:
        """For settlers and the pool's owner, before the delay is over: `proposal` is dropped if it
        is the pending one, and the last active root stays.

        Refused where another one is pending by then, also of the same epoch.

        A settler has one until the next root is active, the owner as many as it wants. `reason` has
        up to 96 bytes.
        """

    def activate(self) -> SentTransaction:
        """For anyone, after the delay."""

    def claim(self, address: Address, total: int, proof: Sequence[Hash]) -> SentTransaction:
        """What `address` has earned and not been paid goes to its payout address.

        For the account itself and its sponsor.
        """

    def fund(self, amount: int) -> SentTransaction: ...

    def pause(self, paused: bool) -> SentTransaction:
        """For the pool's owner: no proposals, activations or claims until it is lifted, and the
        delay of a pending root stands still.
        """

    def create_run(self, run: Hash, manifest: Hash) -> SentTransaction:
        """This account's session of the run; the other three move it."""

    def activate_run(self, run: Hash) -> SentTransaction: ...

    def complete_run(self, run: Hash, certificate: Hash) -> SentTransaction: ...

    def cancel_run(self, run: Hash, reason: str) -> SentTransaction: ...

    def pending(self) -> tuple[SentTransaction, ...]:
        """What was sent, by this process or an earlier one, and is not settled. Asks no one."""

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        """Look after everything pending: notice what was settled (each is told once), offer again
        what was dropped, raise fees of what is stuck.
        """

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        """Reconcile until `sent` is settled.

        Raises `ChainPending` when it is not within `timeout_s`.
        """
