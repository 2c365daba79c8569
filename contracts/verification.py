"""When a node is believed: it shows that it is the chain, and after a transaction that there was an
effect, on each profile in its own way.

A receipt with status 1 proves nothing: a plain EVM takes calldata to an empty address. Our
contracts say an event for every change, and only a contract that is there can; on plumise the state
is read.
"""

from __future__ import annotations

import msgspec

from contracts.artifacts import PLACES, REWARD_POOL
from contracts.chain_settings import PLUMISE
from contracts.endpoints import RpcError, Transport
from contracts.node_rpc import NodeRpc, TransactionReceipt, number_of, record_of
from contracts.pending_transactions import PendingTransaction
from protocol.chain.keccak import Address, checked_address
from protocol.chain.port import AgentStatus, ChainUnreachable, WrongChain


class PlumiseStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `agent_getStatus` says. Numbers come as numbers or as text, decimal or hex."""

    registered: bool
    active: bool = False
    node_id: str = ""
    last_heartbeat: int | str = 0
    registered_at: int | str = 0
    total_rewards: int | str = 0


def check_chain(profile: str, chain_id: int, account: Address, transport: Transport) -> None:
    """Whether this endpoint is the chain. Raises `WrongChain`, or as a transport does."""
    found = number_of(transport("eth_chainId", ()), "eth_chainId")
    if found != chain_id:
        raise WrongChain(f"expected chain {chain_id}, found chain {found}")
    if profile == PLUMISE:
        try:
            known = transport("agent_isAgentAccount", (account, "latest"))
        except RpcError as error:
            raise WrongChain(
                f"chain {found} has no agents (agent_isAgentAccount: {error.message}): its addresses 0x21 to 0x23 do nothing"
            ) from None
        if not isinstance(known, bool):
            raise WrongChain(
                f"chain {found} answers agent_isAgentAccount with what is neither true nor false"
            )
        return
    for contract, place in PLACES.items():
        if transport("eth_getCode", (place, "latest")) in ("0x", "0x0", None, ""):
            raise WrongChain(f"chain {found} has no code at {place}, where {contract} should be")


def effect_of(
    profile: str, node: NodeRpc, each: PendingTransaction, receipt: TransactionReceipt
) -> str:
    """Why a transaction with a good receipt did nothing, "" where it did what it was sent for."""
    ours = {place.lower() for place in PLACES.values()}
    said = {
        log.topics[0].lower() for log in receipt.logs if log.topics and log.address.lower() in ours
    }
    if each.proof in said:
        return ""
    if profile == PLUMISE:
        return _plumise_effect(node, each, receipt)
    return "the receipt is good and no contract said anything: nothing happened"


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
            else "the receipt is good and the reward is still pending"
        )
    agent = plumise_agent(node, each.subject)
    if not agent.registered:
        return "the receipt is good and the account is not registered: nothing happened"
    at = number_of(node.block(receipt.block_number).timestamp, "timestamp")
    if each.kind == "heartbeat" and agent.last_heartbeat_s < at:
        return "the receipt is good and the last heartbeat is an older one: nothing happened"
    return ""


def plumise_agent(node: NodeRpc, address: Address) -> AgentStatus:
    """What Plumise's node says of an account. Raises `ChainUnreachable` for garbage."""
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
    """Raises `ChainUnreachable` for text that is no number."""
    try:
        return number if isinstance(number, int) else int(number, 0)
    except ValueError:
        raise ChainUnreachable(
            f"agent_getStatus was answered with {str(number)[:40]!r} for a number"
        ) from None
