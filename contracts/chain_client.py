"""The `Chain` port over JSON-RPC, for both profiles: `hypergpu` (this project's contracts) and
`plumise` (that chain's precompiles).

This module says what each call sends. `chain_reader` reads, `verification` decides whether to
believe a node, `transaction_sender` sees each transaction through, and `transaction_tracker`
reports how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from contracts import calldata
from contracts.abi import call_data, topic
from contracts.artifacts import (
    AGENT_REGISTRY,
    CLAIM_PRECOMPILE,
    HEARTBEAT_PRECOMPILE,
    INFERENCE_PRECOMPILE,
    REGISTER_PRECOMPILE,
    REWARD_POOL,
    SESSIONS,
)
from contracts.chain_reader import ChainReader
from contracts.chain_settings import PLUMISE, ChainSettings
from contracts.endpoints import Endpoints, RpcTransport
from contracts.node_rpc import NodeRpc, TransactionReceipt
from contracts.pending_transactions import PendingFile, PendingTransaction
from contracts.transaction_broadcaster import TransactionBroadcaster, TransactionSigner
from contracts.transaction_sender import TransactionSender
from contracts.transaction_tracker import TransactionTracker
from contracts.verification import check_chain, effect_of
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import ZERO_ADDRESS, Address, checked_address
from protocol.chain.port import (
    NO_HASH,
    Hash,
    InferenceRecord,
    Proposal,
    SentTransaction,
    SettledTransaction,
)


class ChainClient(ChainReader):
    """Satisfies `protocol.chain.port.Chain`. `contracts.client.connect` makes one."""

    def __init__(
        self,
        settings: ChainSettings,
        *,
        transports: Sequence[RpcTransport],
        signer: TransactionSigner | None,
        file: PendingFile,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Make a client without asking any node. Raises `ValueError` without an endpoint.

        Without a `signer` the client only reads.
        """
        node = NodeRpc(Endpoints(transports, self._check, now))
        super().__init__(settings, node)
        self._sender = (
            None
            if signer is None
            else TransactionSender(
                node,
                TransactionBroadcaster(node, signer, settings.chain_id),
                file,
                self._effect,
                now=now,
                confirmations=settings.confirmations,
                max_fee_per_gas=settings.max_fee_per_gas,
            )
        )
        self._tracker = TransactionTracker(self._sender, now, sleep)

    @property
    def account(self) -> Address:
        return ZERO_ADDRESS if self._sender is None else self._sender.account

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
        """Let `sponsor` register, send heartbeats and claim for this account, and pay for it."""
        self._require_contracts("sponsors")
        data = call_data("approve_sponsor(address)", sponsor)
        return self._send(
            "approve_sponsor", sponsor, AGENT_REGISTRY, data, "SponsorApproved(address,address)"
        )

    def set_payout(self, payout: Address) -> SentTransaction:
        self._require_contracts("a payout account of its own")
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
        data = calldata.heartbeat_calldata(agent) if self.profile == PLUMISE else figures
        return self._send(
            "heartbeat",
            agent or self.account,
            HEARTBEAT_PRECOMPILE,
            data,
            "Heartbeat(address,address,uint256,bytes32)",
        )

    def record_inference(self, record: InferenceRecord) -> SentTransaction:
        return self._send(
            "record_inference",
            f"{self.account} {record.subject}",
            INFERENCE_PRECOMPILE,
            calldata.inference_calldata(record, self.account),
            "InferenceVerified(address,bytes32,bytes32,bytes32,uint256)",
        )

    # ---------------------------------------------------------------- the pool

    def propose(self, proposal: Proposal) -> SentTransaction:
        self._require_contracts("proposals")
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
        self._require_contracts("disputes")
        named = (proposal.epoch, proposal.root, proposal.total, proposal.data)
        data = call_data(
            "dispute(uint256,bytes32,uint256,bytes32,string,bytes32)",
            *named,
            calldata.shortened(reason),
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
        self._require_contracts("roots")
        return self._send(
            "activate",
            "",
            REWARD_POOL,
            call_data("activate()"),
            "Activated(uint256,bytes32,uint256)",
        )

    def claim(self, address: Address, total: int, proof: Sequence[Hash]) -> SentTransaction:
        if self.profile == PLUMISE:
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
        """Claim to the payout that `address` signed for (`contracts.signers.sign_claim`).

        Anyone may send this.
        """
        self._require_contracts("signed claims")
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
        """Leave a proof with the pool for a claim in Plumise's calldata, which carries none."""
        self._require_contracts("proofs")
        data = call_data("prove(address,uint256,bytes32[])", address, total, list(proof))
        return self._send("prove", address, REWARD_POOL, data, "Proved(address,uint256)")

    def fund(self, amount: int) -> SentTransaction:
        self._require_contracts("funding by contract")
        return self._send(
            "fund",
            str(amount),
            REWARD_POOL,
            call_data("fund()"),
            "Funded(address,uint256)",
            value=amount,
        )

    def pause(self, paused: bool) -> SentTransaction:
        self._require_contracts("a pause")
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
            call_data("cancel(bytes32,string)", run, calldata.shortened(reason)),
            "Cancelled(bytes32,address,string)",
        )

    def _session(self, kind: str, run: Hash, data: bytes, event: str) -> SentTransaction:
        self._require_contracts("runs")
        return self._send(kind, run.hex(), SESSIONS, data, event)

    def pending(self) -> tuple[SentTransaction, ...]:
        return self._tracker.pending()

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        return self._tracker.reconcile()

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        """Raises `ChainUnreachable`, too, if the last look before the timeout got no answer."""
        return self._tracker.wait(sent, timeout_s)

    def _send(
        self, kind: str, subject: str, to: Address, data: bytes, event: str, *, value: int = 0
    ) -> SentTransaction:
        if self._sender is None:
            raise ChainRefused("client: there is no wallet to sign with")
        return self._sender.send(kind, subject, to, data, value=value, proof=topic(event))

    def _check(self, transport: RpcTransport) -> None:
        check_chain(self.profile, self._settings.chain_id, self.account, transport)

    def _effect(self, each: PendingTransaction, receipt: TransactionReceipt) -> str:
        return effect_of(self.profile, self._node, each, receipt)
