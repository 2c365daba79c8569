"""What a client reads of a chain, for both profiles.

The profile `hypergpu` has this project's contracts. The profile `plumise` has that chain's
precompiles and its own calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.artifacts import AGENT_REGISTRY, REWARD_POOL, SESSIONS
from contracts.chain_settings import HYPERGPU, PLUMISE, ChainSettings
from contracts.liveness import heard_between
from contracts.node_rpc import NodeRpc, number_of
from contracts.verification import plumise_agent
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import Address, checked_address
from protocol.chain.port import (
    NO_HASH,
    AgentStatus,
    ChainHead,
    Hash,
    PoolStatus,
    Proposal,
    RunStatus,
)

# The values of the flag `State` in sessions.vy.
STATES = {0: "none", 1: "created", 2: "active", 4: "completed", 8: "cancelled"}
_AGENT = "(bytes32,bytes32,uint256,uint256,uint256,bytes32)"


class ChainReader:
    """The reading half of the `Chain` port."""

    def __init__(self, settings: ChainSettings, node: NodeRpc) -> None:
        self._settings = settings
        self._node = node

    @property
    def profile(self) -> str:
        return self._settings.profile

    def head(self) -> ChainHead:
        block = self._node.block()
        return ChainHead(
            chain_id=self._settings.chain_id,
            number=number_of(block.number, "number"),
            hash=bytes.fromhex(block.hash.removeprefix("0x")),
            at_s=number_of(block.timestamp, "timestamp"),
        )

    def agent(self, address: Address) -> AgentStatus:
        if self.profile == PLUMISE:
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
        self._require_contracts("heartbeat events")
        return heard_between(self._node, accounts, since_s, until_s)

    def balance(self, address: Address) -> int:
        return self._node.number("eth_getBalance", address, "latest")

    def pool(self) -> PoolStatus:
        epoch = self._uint(REWARD_POOL, "getCurrentEpoch()")
        balance = self.balance(REWARD_POOL)
        # Plumise's pool tells only its epoch.
        if self.profile == PLUMISE:
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
        self._require_contracts("runs")
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
        if self.profile == PLUMISE:
            return plumise_agent(self._node, address).rewards
        return self._uint(REWARD_POOL, "claimed(address)", address)

    def claimable(self, address: Address, total: int, proof: Sequence[Hash]) -> int:
        if self.profile == PLUMISE:
            return self._uint(REWARD_POOL, "getPendingReward(address)", address)
        return self._uint(
            REWARD_POOL, "is_claimable(address,uint256,bytes32[])", address, total, list(proof)
        )

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

    def _require_contracts(self, what: str) -> None:
        """Raise `ChainRefused` on a chain without this project's contracts."""
        if self.profile != HYPERGPU:
            raise ChainRefused(f"client: the profile {self.profile} has no {what}")
