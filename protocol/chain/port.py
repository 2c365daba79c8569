"""The `Chain` port: the requests to a chain, and its answers.

The real chain is in `contracts/`, the fake in `simulator/`. Both pass the suite in `tests/ports/`.
Errors are in `errors.py`. Amounts are integers in the chain's base units. Times are the chain's, in
unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from protocol.chain.keccak import ZERO_ADDRESS, Address

Hash = bytes
"""32 bytes."""

NO_HASH: Hash = bytes(32)


class ChainHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest block: its number, hash and time."""

    chain_id: int
    number: int
    hash: Hash
    at_s: int


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says of an account. All zero if the account is not registered.

    `active`: registered, and heard from within the heartbeat timeout.

    `samples` and `certificate` are those of its last heartbeat; 0 and zeros on a chain that keeps
    neither (plumise).
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
    # Paid so far, in base units.
    rewards: int = 0


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A cumulative root: everything earned up to the end of `epoch`.

    `total` is the sum of its leaves. `data` is the digest of the published data set.
    """

    epoch: int
    root: Hash
    total: int
    data: Hash = NO_HASH

    @property
    def subject(self) -> str:
        """All fields as text. Two proposals are the same transaction only if nothing differs."""
        return f"{self.epoch} {self.root.hex()} {self.total} {self.data.hex()}"


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The reward pool.

    `pending` has the majority of settlers and waits until `ready_at_s`, when anyone may activate
    it. While the pool is `paused`, that time moves on with the clock.
    """

    balance: int
    # Paid out in all.
    claimed: int
    # The current epoch. Only earlier ones can be settled.
    epoch: int
    # The length of an epoch.
    epoch_s: int
    epoch_ends_at_s: int
    paused: bool
    # Settlers that must propose the same root.
    needed: int
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


class InferenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent served of one model: digests of the token ids in and out, and how many."""

    model: Hash
    inputs: Hash
    outputs: Hash
    tokens: int

    @property
    def subject(self) -> str:
        """All fields as text."""
        return f"{self.model.hex()} {self.inputs.hex()} {self.outputs.hex()} {self.tokens}"


class SentTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that is signed and recorded, and so completed even by a later process.

    `kind` is the port's method. `hash` is that of the first transaction ("0x" and 64 digits).
    Another one with the same nonce and a higher fee may replace it.
    """

    kind: str
    nonce: int
    hash: str


class SettledTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """How a transaction ended.

    `done`: it is in the chain, and its effect was read back. Otherwise `reason` says what became of
    it.
    """

    sent: SentTransaction
    done: bool
    # The hash of the transaction that was included.
    hash: str = ""
    block: int = 0
    gas: int = 0
    fee: int = 0
    reason: str = ""


class Chain(Protocol):
    """The chain on which contributions are settled.

    `none` is a working default: training never waits for a chain. Every method blocks (web3 does):
    a node calls them through its `Offload`, the command line directly. One instance owns its
    account's nonce, and several threads may call it. Methods raise `ChainUnreachable`,
    `ChainRefused` or `WrongChain`, and nothing else for what a chain does.

    A method that changes the chain returns as soon as its transaction is signed, recorded and
    offered to the chain. `reconcile` and `wait` return the outcome. Guarantees that nothing is sent
    again under another nonce, not even by a later process. `SettledTransaction.done` means that the
    effect was read back, not that a receipt exists. A transaction that a deep reorganization
    removes later is in `pending` again and is reported again. Does not guarantee that any
    transaction is ever settled.
    """

    @property
    def profile(self) -> str:
        """ "none", "hypergpu" or "plumise"."""

    @property
    def account(self) -> Address:
        """The wallet that signs; `ZERO_ADDRESS` for a read-only chain."""

    def head(self) -> ChainHead: ...

    def agent(self, address: Address) -> AgentStatus: ...

    def heard(self, accounts: Sequence[Address], since_s: int, until_s: int) -> frozenset[Address]:
        """Return the accounts that were heard from in [since_s, until_s), in chain time.

        Registrations and heartbeats count. The answer comes from what the chain keeps for ever, so
        everyone gets the same answer at any time. Raises `ChainRefused` on plumise, which emits no
        such events.
        """

    def balance(self, address: Address) -> int: ...

    def pool(self) -> PoolStatus: ...

    def run(self, run: Hash, owner: Address) -> RunStatus:
        """Return the session that `owner` created for this run.

        Others may have their own sessions of the run, which say nothing of this one.
        """

    def claimed(self, address: Address) -> int:
        """Return what was paid out for this account so far."""

    def claimable(self, address: Address, total: int, proof: Sequence[Hash]) -> int:
        """Return what a claim would pay now; 0 if the proof does not lead to the active root.

        On plumise this is what the pool says, whatever the arguments are.
        """

    def register(
        self,
        name: str,
        *,
        model: Hash = NO_HASH,
        capabilities: Sequence[Hash] = (),
        agent: Address | None = None,
    ) -> SentTransaction:
        """Register once per account.

        `name` is cut to 32 bytes of UTF-8 between two characters. `agent` is another account that
        approved this one as its sponsor.
        """

    def set_payout(self, payout: Address) -> SentTransaction:
        """Set where this account's claims are paid. The default is the account itself."""

    def heartbeat(
        self, samples: int, certificate: Hash, *, agent: Address | None = None
    ) -> SentTransaction:
        """Report that the agent is alive, with its cumulative samples and last certificate.

        `samples` never decrease. On plumise the heartbeat carries neither.
        """

    def record_inference(self, record: InferenceRecord) -> SentTransaction:
        """Record what this account served. The chain refuses the same record twice.

        The record is the account's own word, and earns nothing by itself.
        """

    def propose(self, proposal: Proposal) -> SentTransaction:
        """Vote for a root. For settlers. A root with enough equal votes is pending."""

    def dispute(self, proposal: Proposal, reason: str, evidence: Hash = NO_HASH) -> SentTransaction:
        """Drop `proposal` if it is the pending one and its delay is not over.

        The last active root stays. For settlers and the pool's owner. A settler has one dispute
        until the next root is active, the owner any number. The chain refuses if another proposal
        is pending by then, even one of the same epoch. `reason` has up to 96 bytes.
        """

    def activate(self) -> SentTransaction:
        """Activate the pending root after its delay. For anyone."""

    def claim(self, address: Address, total: int, proof: Sequence[Hash]) -> SentTransaction:
        """Pay what `address` has earned and not received to its payout address.

        For the account itself and its sponsor.
        """

    def fund(self, amount: int) -> SentTransaction: ...

    def pause(self, paused: bool) -> SentTransaction:
        """Stop proposals, activations and claims, and the delay of a pending root.

        For the pool's owner.
        """

    def create_run(self, run: Hash, manifest: Hash) -> SentTransaction:
        """Create this account's session of a run. The next three methods change its state."""

    def activate_run(self, run: Hash) -> SentTransaction: ...

    def complete_run(self, run: Hash, certificate: Hash) -> SentTransaction: ...

    def cancel_run(self, run: Hash, reason: str) -> SentTransaction: ...

    def pending(self) -> tuple[SentTransaction, ...]:
        """Return what was sent, by this process or an earlier one, and is not settled.

        Asks no endpoint.
        """

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        """Process everything pending, and return each settled transaction once.

        Dropped transactions are offered again, and the fees of stuck ones are raised.
        """

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        """Reconcile until `sent` is settled.

        Raises `ChainPending` if that takes longer than `timeout_s`.
        """
