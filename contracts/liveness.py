"""Finds the accounts that the registry heard from between two instants, by its events.

The registry itself keeps only an agent's last heartbeat, and the chain keeps all events. So
everyone gets the same answer at any time. The block range is found by bisection over block times,
and events are read in pieces until each account was found.
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
# The range of one eth_getLogs. The heartbeats of a thousand nodes in 256 blocks of 3 s are 5 MB of
# JSON, and public endpoints refuse 2,000 blocks and more.
LOG_BLOCKS = 256
# Up to this many accounts are named in the question. More are picked out of the answer.
NAMED_AGENTS = 64


def heard_between(
    node: NodeRpc, accounts: Iterable[Address], since_s: int, until_s: int
) -> frozenset[Address]:
    """Return the `accounts` heard from in [since_s, until_s), in chain time.

    A registration and a heartbeat both count. Raises `ChainUnreachable`.
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
    """Return the agents in the events of blocks `first` to `last`.

    If the node refuses the range, each half is read by itself.
    """
    agents: list[str] | None = ["0x" + account.hex().rjust(64, "0") for account in named] or None
    try:
        logs = node.logs(AGENT_REGISTRY, [[REGISTERED, HEARTBEAT], agents], first, last)
    except RpcError as error:
        if first == last:
            raise ChainUnreachable(
                f"eth_getLogs failed for block {first} with error {error.code}: {error.message}"
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
    """Return the first block at or after `at_s`, or the number after the head's."""
    low, high = 0, number_of(node.block().number, "number") + 1
    while low < high:
        middle = (low + high) // 2
        if number_of(node.block(hex(middle)).timestamp, "timestamp") < at_s:
            low = middle + 1
        else:
            high = middle
    return low
