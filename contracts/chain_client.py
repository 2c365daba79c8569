"""The `Chain` port over JSON-RPC, for both profiles: `hypergpu` (our contracts) and `plumise` (the
raw precompiles of that chain).

What it takes to believe a node is in `believing.py`, what becomes of a transaction in `nonce.py`;
here is what each call asks and sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from contracts import calldata
from contracts.abi import call_data, topic
from contracts.artifacts import (
    AGENT_REGISTRY,
    CLAIM_PRECOMPILE,
    HEARTBEAT_PRECOMPILE,
    REGISTER_PRECOMPILE,
    REWARD_POOL,
    SESSIONS,
)
from contracts.endpoints import Endpoints, Transport
from contracts.liveness import heard_between
from contracts.node_rpc import NodeRpc, TransactionReceipt, number_of
from contracts.pending_transactions import PendingFile, PendingTransaction
from contracts.transaction_sender import DEFAULT_CEILING, TransactionSender, TransactionSigner
from contracts.verification import HYPERGPU, PLUMISE, check_chain, effect_of, plumise_agent
from protocol.chain.errors import ChainPending, ChainRefused, ChainUnreachable
from protocol.chain.keccak import ZERO_ADDRESS, Address, checked_address
from protocol.chain.port import (
    NO_HASH,
    AgentStatus,
    ChainHead,
    Hash,
    PoolStatus,
    Proposal,
    RunStatus,
    SentTransaction,
    SettledTransaction,
)

# Between looks while waiting; blocks come every 2 to 3 s.
POLL_S = 1.0
# Ends that are remembered: what a process sends in hours.
MOST_ENDED = 64
# Vyper's flag values.
STATES = {0: "none", 1: "created", 2: "active", 4: "completed", 8: "cancelled"}
REWARD_CLAIMED = topic("RewardClaimed(address,uint256)")
_AGENT = "(bytes32,bytes32,uint256,uint256,uint256,bytes32)"


class ChainClient:
    """Satisfies `protocol.chain.port.Chain`. Made by `contracts.client.connect`."""

    def __init__(
        self,
        *,
        profile: str,
        chain_id: int,
        transports: Sequence[Transport],
        signer: TransactionSigner | None,
        file: PendingFile,
        now: Callable[[], float],
        sleep: Callable[[float], None],
        confirmations: int,
        ceiling: int = DEFAULT_CEILING,
    ) -> None:
        """Asks nobody. Raises `ValueError` for an unknown profile or no endpoint."""
        if profile not in (HYPERGPU, PLUMISE):
            raise ValueError(f"there is no chain profile {profile!r}: hypergpu or plumise")
        self._profile = profile
        self._chain_id = chain_id
        self._now = now
        self._sleep = sleep
        self._node = NodeRpc(Endpoints(transports, self._believe, now))
        self._sender = (
            None
            if signer is None
            else TransactionSender(
                self._node,
                signer,
                chain_id,
                file,
                self._effect,
                now=now,
                confirmations=confirmations,
                ceiling=ceiling,
            )
        )
        # For those that wait, whoever's look it was that found the end.
        self._ended: deque[SettledTransaction] = deque(maxlen=MOST_ENDED)
        # Found by a wait, not yet told by `reconcile`.
        self._untold: deque[SettledTransaction] = deque(maxlen=MOST_ENDED)

    @property
    def profile(self) -> str:
        return self._profile

    @property
    def account(self) -> Address:
        return ZERO_ADDRESS if self._sender is None else self._sender.account

    # ---------------------------------------------------------------- reading

    def head(self) -> ChainHead:
        block = self._node.block()
        return ChainHead(
            chain_id=self._chain_id,
            number=number_of(block.number, "number"),
            hash=bytes.fromhex(block.hash.removeprefix("0x")),
            at_s=number_of(block.timestamp, "timestamp"),
        )

    def agent(self, address: Address) -> AgentStatus:
        if self._profile == PLUMISE:
            return plumise_agent(self._node, address)
        (name, _, since, last, samples, certificate), active, payout = self._read(
            AGENT_REGISTRY, "status(address)", address, returns=[_AGENT, "bool", "address"]
        )
        if since == 0:
            return AgentStatus(address=checked_address(address), payout=checked_address(payout))
        return AgentStatus(
            address=checked_address(address),
            registered=True,
            active=active,
            name=name.rstrip(b"\0").decode("utf-8", "replace"),
            last_heartbeat_s=last,
            registered_at_s=since,
            payout=checked_address(payout),
            samples=samples,
            certificate=certificate,
            rewards=self.claimed(address),
        )

    def heard(self, accounts: Sequence[Address], since_s: int, until_s: int) -> frozenset[Address]:
        self._ours("heartbeat events")
        return heard_between(self._node, accounts, since_s, until_s)

    def balance(self, address: Address) -> int:
        return self._node.number("eth_getBalance", address, "latest")

    def pool(self) -> PoolStatus:
        epoch = self._uint(REWARD_POOL, "getCurrentEpoch()")
        balance = self.balance(REWARD_POOL)
        if self._profile == PLUMISE:  # its pool says no more
            return PoolStatus(
                balance=balance,
                claimed=0,
                epoch=epoch,
                epoch_s=0,
                epoch_ends_at_s=0,
                paused=False,
                needed=0,
                settlers=(),
            )
        length = self._uint(REWARD_POOL, "EPOCH_SECONDS()")
        pending = self._proposal("pending()")
        return PoolStatus(
            balance=balance,
            claimed=self._uint(REWARD_POOL, "claimed_total()"),
            epoch=epoch,
            epoch_s=length,
            epoch_ends_at_s=self._uint(REWARD_POOL, "START()") + (epoch + 1) * length,
            paused=bool(self._read(REWARD_POOL, "paused()", returns=["bool"])[0]),
            needed=self._uint(REWARD_POOL, "needed()"),
            settlers=tuple(
                checked_address(each)
                for each in self._read(REWARD_POOL, "get_settlers()", returns=["address[]"])[0]
            ),
            active=self._proposal("active()"),
            pending=pending,
            ready_at_s=0 if pending is None else self._uint(REWARD_POOL, "ready_at()"),
        )

    def run(self, run: Hash, owner: Address) -> RunStatus:
        self._ours("runs")
        found, manifest, certificate, state = self._read(
            SESSIONS,
            "sessions(address,bytes32)",
            owner,
            run,
            returns=["address", "bytes32", "bytes32", "uint256"],
        )
        return RunStatus(
            run=run,
            state=STATES.get(state, "none"),
            owner=checked_address(found),
            manifest=manifest,
            certificate=certificate,
        )

    def claimed(self, address: Address) -> int:
        if self._profile == PLUMISE:
            return plumise_agent(self._node, address).rewards
        return self._uint(REWARD_POOL, "claimed(address)", address)

    def claimable(self, address: Address, total: int, proof: Sequence[Hash]) -> int:
        if self._profile == PLUMISE:
            return self._uint(REWARD_POOL, "getPendingReward(address)", address)
        return self._uint(
            REWARD_POOL, "is_claimable(address,uint256,bytes32[])", address, total, list(proof)
        )

    # ---------------------------------------------------------------- who takes part

    def register(
        self,
        name: str,
        *,
        model: Hash = NO_HASH,
        capabilities: Sequence[Hash] = (),
        agent: Address | None = None,
    ) -> SentTransaction:
        data = calldata.register_calldata(name, model, capabilities, agent)
        return self._send(
            "register",
            agent or self.account,
            REGISTER_PRECOMPILE,
            data,
            "Registered(address,address,bytes32,bytes32,bytes32[])",
        )

    def approve_sponsor(self, sponsor: Address) -> SentTransaction:
        """Lets `sponsor` register, beat and claim for this account, at its own expense."""
        self._ours("sponsors")
        data = call_data("approve_sponsor(address)", sponsor)
        return self._send(
            "approve_sponsor", sponsor, AGENT_REGISTRY, data, "SponsorApproved(address,address)"
        )

    def set_payout(self, payout: Address) -> SentTransaction:
        self._ours("a payout account of its own")
        return self._send(
            "set_payout",
            payout,
            AGENT_REGISTRY,
            call_data("set_payout(address)", payout),
            "PayoutSet(address,address)",
        )

    def heartbeat(
        self, samples: int, certificate: Hash, *, agent: Address | None = None
    ) -> SentTransaction:
        figures = calldata.heartbeat_figures_calldata(agent or self.account, samples, certificate)
        data = calldata.heartbeat_calldata(agent) if self._profile == PLUMISE else figures
        return self._send(
            "heartbeat",
            agent or self.account,
            HEARTBEAT_PRECOMPILE,
            data,
            "Heartbeat(address,address,uint256,bytes32)",
        )

    # ---------------------------------------------------------------- the pool

    def propose(self, proposal: Proposal) -> SentTransaction:
        self._ours("proposals")
        data = call_data(
            "propose(uint256,bytes32,uint256,bytes32)",
            proposal.epoch,
            proposal.root,
            proposal.total,
            proposal.data,
        )
        return self._send(
            "propose",
            proposal.subject,
            REWARD_POOL,
            data,
            "Voted(address,uint256,bytes32,uint256,bytes32)",
        )

    def dispute(self, proposal: Proposal, reason: str, evidence: Hash = NO_HASH) -> SentTransaction:
        self._ours("disputes")
        named = (proposal.epoch, proposal.root, proposal.total, proposal.data)
        data = call_data(
            "dispute(uint256,bytes32,uint256,bytes32,string,bytes32)",
            *named,
            _cut(reason),
            evidence,
        )
        return self._send(
            "dispute",
            proposal.subject,
            REWARD_POOL,
            data,
            "Disputed(uint256,address,bytes32,string,bytes32)",
        )

    def activate(self) -> SentTransaction:
        self._ours("roots")
        return self._send(
            "activate",
            "",
            REWARD_POOL,
            call_data("activate()"),
            "Activated(uint256,bytes32,uint256)",
        )

    def claim(self, address: Address, total: int, proof: Sequence[Hash]) -> SentTransaction:
        if self._profile == PLUMISE:
            own = checked_address(address) == self.account
            data = calldata.claim_calldata(None if own else address)
        else:
            data = calldata.claim_proof_calldata(address, total, proof)
        return self._send(
            "claim", address, CLAIM_PRECOMPILE, data, "RewardClaimed(address,uint256)"
        )

    def claim_to(
        self,
        address: Address,
        payout: Address,
        total: int,
        deadline_s: int,
        proof: Sequence[Hash],
        signature: bytes,
    ) -> SentTransaction:
        """As `claim`, to the payout that `address` signed for (`contracts.signers.sign_claim`).

        Anyone may send it.
        """
        self._ours("signed claims")
        data = call_data(
            "claim_to(address,address,uint256,uint256,bytes32[],bytes)",
            address,
            payout,
            total,
            deadline_s,
            list(proof),
            signature,
        )
        return self._send("claim_to", address, REWARD_POOL, data, "RewardClaimed(address,uint256)")

    def prove(self, address: Address, total: int, proof: Sequence[Hash]) -> SentTransaction:
        """Leaves a proof with the pool, so that a claim in Plumise's words, which carry none, pays
        it.
        """
        self._ours("proofs")
        data = call_data("prove(address,uint256,bytes32[])", address, total, list(proof))
        return self._send("prove", address, REWARD_POOL, data, "Proved(address,uint256)")

    def fund(self, amount: int) -> SentTransaction:
        self._ours("funding by contract")
        return self._send(
            "fund",
            str(amount),
            REWARD_POOL,
            call_data("fund()"),
            "Funded(address,uint256)",
            value=amount,
        )

    def pause(self, paused: bool) -> SentTransaction:
        self._ours("a pause")
        call, event = (
            ("pause()", "Paused(address)") if paused else ("unpause()", "Unpaused(address)")
        )
        return self._send("pause", call, REWARD_POOL, call_data(call), event)

    # ---------------------------------------------------------------- runs

    def create_run(self, run: Hash, manifest: Hash) -> SentTransaction:
        return self._session(
            "create_run",
            run,
            call_data("create(bytes32,bytes32)", run, manifest),
            "Created(bytes32,address,bytes32)",
        )

    def activate_run(self, run: Hash) -> SentTransaction:
        return self._session(
            "activate_run", run, call_data("activate(bytes32)", run), "Activated(bytes32,address)"
        )

    def complete_run(self, run: Hash, certificate: Hash) -> SentTransaction:
        data = call_data("complete(bytes32,bytes32)", run, certificate)
        return self._session("complete_run", run, data, "Completed(bytes32,address,bytes32)")

    def cancel_run(self, run: Hash, reason: str) -> SentTransaction:
        return self._session(
            "cancel_run",
            run,
            call_data("cancel(bytes32,string)", run, _cut(reason)),
            "Cancelled(bytes32,address,string)",
        )

    def _session(self, kind: str, run: Hash, data: bytes, event: str) -> SentTransaction:
        self._ours("runs")
        return self._send(kind, run.hex(), SESSIONS, data, event)

    # ---------------------------------------------------------------- what is in flight

    def pending(self) -> tuple[SentTransaction, ...]:
        return () if self._sender is None else self._sender.pending()

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        ended = self._look()
        told = (*self._untold, *ended)
        self._untold.clear()
        return told

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        """Raises also `ChainUnreachable` when the time is over and the last look got no answer."""
        deadline = self._now() + timeout_s
        while True:
            problem: ChainUnreachable | None = None
            try:
                self._untold.extend(self._look())
            except ChainUnreachable as error:
                problem = error
            for each in self._ended:
                if each.sent == sent:
                    return each
            if problem is None and sent not in self.pending():
                raise ChainRefused(
                    f"client: {sent.kind} ({sent.hash}) is not in flight, and how it ended is forgotten"
                )
            if self._now() >= deadline:
                raise problem or ChainPending(sent, timeout_s)
            self._sleep(POLL_S)

    def _look(self) -> tuple[SettledTransaction, ...]:
        if self._sender is None:
            return ()
        ended = self._sender.reconcile()
        # Of what a reorganization took out the end is no longer known.
        if self._ended:
            flying = self._sender.pending()
            self._ended = deque(
                (each for each in self._ended if each.sent not in flying), MOST_ENDED
            )
        self._ended.extend(ended)
        return ended

    # ---------------------------------------------------------------- inside

    def _send(
        self, kind: str, subject: str, to: Address, data: bytes, event: str, *, value: int = 0
    ) -> SentTransaction:
        if self._sender is None:
            raise ChainRefused("client: there is no wallet to sign with")
        return self._sender.send(kind, subject, to, data, value=value, proof=topic(event))

    def _believe(self, transport: Transport) -> None:
        check_chain(self._profile, self._chain_id, self.account, transport)

    def _effect(self, each: PendingTransaction, receipt: TransactionReceipt) -> str:
        return effect_of(self._profile, self._node, each, receipt)

    def _read(
        self, to: Address, signature: str, *arguments: Any, returns: list[str]
    ) -> tuple[Any, ...]:
        return self._node.call(to, signature, *arguments, returns=returns)

    def _uint(self, to: Address, signature: str, *arguments: Any) -> int:
        return int(self._read(to, signature, *arguments, returns=["uint256"])[0])

    def _proposal(self, signature: str) -> Proposal | None:
        epoch, root, total, data = self._read(
            REWARD_POOL, signature, returns=["uint256", "bytes32", "uint256", "bytes32"]
        )
        return None if root == NO_HASH else Proposal(epoch=epoch, root=root, total=total, data=data)

    def _ours(self, what: str) -> None:
        if self._profile != HYPERGPU:
            raise ChainRefused(f"client: the profile {self._profile} has no {what}")


def _cut(text: str) -> str:
    """To the 96 bytes that the contracts take, between two characters."""
    return text.encode()[:96].decode("utf-8", "ignore")
