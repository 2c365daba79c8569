"""Decides whether to believe a node.

An endpoint must show that it belongs to the right chain. After a transaction it must show an
effect, since a receipt with status 1 proves nothing: a plain EVM accepts calldata for an empty
address. This project's contracts log an event for every change. On Plumise, the client reads the
state.
"""

from __future__ import annotations

import msgspec

from contracts.artifacts import PLACES, REWARD_POOL
from contracts.chain_settings import PLUMISE
from contracts.endpoints import RpcError, RpcTransport
from contracts.node_rpc import NodeRpc, TransactionReceipt, number_of, record_of
from contracts.pending_transactions import PendingTransaction
from protocol.chain.errors import ChainUnreachable, WrongChain
from protocol.chain.keccak import Address, checked_address
from protocol.chain.port import AgentStatus

TRANSACTION_GAS, INFERENCE_GAS = 21_000, 50_000
"""What every transaction costs, and what Plumise's precompile 0x20 costs."""


class PlumiseStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to `agent_getStatus`. Numbers are JSON numbers or text, decimal or hex."""

    registered: bool
    active: bool = False
    node_id: str = ""
    last_heartbeat: int | str = 0
    registered_at: int | str = 0
    total_rewards: int | str = 0


def check_chain(profile: str, chain_id: int, account: Address, transport: RpcTransport) -> None:
    """Check that an endpoint belongs to the chain.

    Raises `WrongChain`, or what a transport raises.
    """
    found = number_of(transport("eth_chainId", ()), "eth_chainId")
    if found != chain_id:
        raise WrongChain(f"expected chain {chain_id}, found chain {found}")
    if profile == PLUMISE:
        try:
            known = transport("agent_isAgentAccount", (account, "latest"))
        except RpcError as error:
            raise WrongChain(
                f"chain {found} has no agents (agent_isAgentAccount: {error.message}): "
                "its addresses 0x20 to 0x23 do nothing"
            ) from None
        if not isinstance(known, bool):
            raise WrongChain(
                f"chain {found} answers agent_isAgentAccount with neither true nor false"
            )
        return
    for contract, place in PLACES.items():
        if transport("eth_getCode", (place, "latest")) in ("0x", "0x0", None, ""):
            raise WrongChain(f"chain {found} has no code at {place}, where {contract} should be")


def effect_of(
    profile: str, node: NodeRpc, each: PendingTransaction, receipt: TransactionReceipt
) -> str:
    """Say why a transaction with status 1 had no effect; "" if it had its effect."""
    ours = {place.lower() for place in PLACES.values()}
    logged = {
        log.topics[0].lower() for log in receipt.logs if log.topics and log.address.lower() in ours
    }
    if each.proof in logged:
        return ""
    if profile == PLUMISE:
        return _plumise_effect(node, each, receipt)
    return "the receipt has status 1, but no contract logged an event: nothing happened"


def _plumise_effect(node: NodeRpc, each: PendingTransaction, receipt: TransactionReceipt) -> str:
    if each.kind == "claim":
        left = int(
            node.call(REWARD_POOL, "getPendingReward(address)", each.subject, returns=["uint256"])[
                0
            ]
        )
        return (
            ""
            if left == 0 and plumise_agent(node, each.subject).registered
            else "the receipt has status 1, but the reward is still pending"
        )
    agent = plumise_agent(node, each.subject.partition(" ")[0])
    if not agent.registered:
        return "the receipt has status 1, but the account is not registered: nothing happened"
    if each.kind == "record_inference":
        # The precompile keeps no state that can be read back, but an address without code would
        # have cost the transaction itself alone.
        used = number_of(receipt.gas_used, "gasUsed")
        spent = used >= TRANSACTION_GAS + INFERENCE_GAS
        return "" if spent else f"the receipt has status 1, but {used} gas is too little for 0x20"
    at = number_of(node.block(receipt.block_number).timestamp, "timestamp")
    if each.kind == "heartbeat" and agent.last_heartbeat_s < at:
        return "the receipt has status 1, but the last heartbeat is older: nothing happened"
    return ""


def plumise_agent(node: NodeRpc, address: Address) -> AgentStatus:
    """Read an account's status on Plumise. Raises `ChainUnreachable` for garbage."""
    found = record_of(node.ask("agent_getStatus", address), PlumiseStatus, "agent_getStatus")
    if found is None or not found.registered:
        return AgentStatus(address=checked_address(address), payout=checked_address(address))
    return AgentStatus(
        address=checked_address(address),
        registered=True,
        active=found.active,
        name=found.node_id,
        last_heartbeat_s=_plain(found.last_heartbeat),
        registered_at_s=_plain(found.registered_at),
        payout=checked_address(address),
        rewards=_plain(found.total_rewards),
    )


def _plain(number: int | str) -> int:
    """Decode a number. Raises `ChainUnreachable` for other text."""
    try:
        return number if isinstance(number, int) else int(number, 0)
    except ValueError:
        raise ChainUnreachable(
            f"the answer to agent_getStatus has {str(number)[:40]!r} for a number"
        ) from None
