"""Who was heard of between two instants, by the registry's own events: the same answer to whoever
asks, whenever they ask.

The registry keeps an agent's last heartbeat alone; the chain keeps the events of all of them.
Blocks are found by their time (bisection), events asked for in pieces, and no longer than until
everybody that is asked about was heard.
"""

from __future__ import annotations

from collections.abc import Iterable

from contracts.abi import topic
from contracts.artifacts import AGENT_REGISTRY
from contracts.endpoints import RpcError
from contracts.node_rpc import NodeRpc, number_of
from protocol.chain.errors import ChainUnreachable
from protocol.chain.keccak import Address, account_bytes, address_of

REGISTERED = topic("Registered(address,address,bytes32,bytes32,bytes32[])")
HEARTBEAT = topic("Heartbeat(address,address,uint256,bytes32)")
LOG_BLOCKS = (
    # Of one eth_getLogs: a thousand nodes' heartbeats in 256 blocks of 3 s are 5 MB of JSON; public
    # endpoints refuse 2,000 and more.
    256
)
# So many are named in the question, more are picked out of the answer.
NAMED_AGENTS = 64


def heard_between(
    node: NodeRpc, accounts: Iterable[Address], since_s: int, until_s: int
) -> frozenset[Address]:
    """Those of `accounts` that registered or beat in a block with since_s <= time < until_s.

    Raises `ChainUnreachable`.
    """
    missing = {account_bytes(account): account for account in accounts}
    heard: set[Address] = set()
    if not missing:
        return frozenset()
    first, end = _block_at(node, since_s), _block_at(node, until_s)
    while first < end and missing:
        size = min(LOG_BLOCKS, end - first)
        for agent in _agents(
            node, first, first + size - 1, list(missing) if len(missing) <= NAMED_AGENTS else []
        ):
            account = missing.pop(agent, None)
            if account is not None:
                heard.add(account)
        first += size
    return frozenset(heard)


def _agents(node: NodeRpc, first: int, last: int, named: list[bytes]) -> set[bytes]:
    """The agents of the events in blocks `first` to `last`; where the node finds that too much, in
    two halves.
    """
    agents: list[str] | None = ["0x" + account.hex().rjust(64, "0") for account in named] or None
    try:
        logs = node.logs(AGENT_REGISTRY, [[REGISTERED, HEARTBEAT], agents], first, last)
    except RpcError as error:
        if first == last:
            raise ChainUnreachable(
                f"eth_getLogs of block {first} was answered with error {error.code}: {error.message}"
            ) from None
        middle = (first + last) // 2
        return _agents(node, first, middle, named) | _agents(node, middle + 1, last, named)
    return {
        bytes.fromhex(log.topics[1][-40:])
        for log in logs
        if len(log.topics) > 1
        and log.topics[0] in (REGISTERED, HEARTBEAT)
        and address_of(account_bytes(log.address)) == AGENT_REGISTRY
    }


def _block_at(node: NodeRpc, at_s: int) -> int:
    """The first block whose time is not before `at_s`; one past the head where there is none yet."""
    low, high = 0, number_of(node.block().number, "number") + 1
    while low < high:
        middle = (low + high) // 2
        if number_of(node.block(hex(middle)).timestamp, "timestamp") < at_s:
            low = middle + 1
        else:
            high = middle
    return low
