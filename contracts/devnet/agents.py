"""Plumise's own calls, `agent_*`, answered from this project's registry and pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eth_abi import decode, encode

from contracts.artifacts import AGENT_REGISTRY, REWARD_POOL
from protocol.chain.keccak import Address, account_bytes, address_of, keccak256

_AGENT = "(bytes32,bytes32,uint256,uint256,uint256,bytes32)"

Call = Callable[[Address, bytes], bytes]
"""Calls a contract with calldata and returns its answer."""


def is_agent(call: Call, who: str) -> bool:
    """Answer `agent_isAgentAccount`."""
    return bool(_read(call, AGENT_REGISTRY, "is_registered(address)", who, ["bool"])[0])


def agent_status(call: Call, who: str) -> dict[str, Any]:
    """Answer `agent_getStatus`."""
    (name, model, since, last, samples, certificate), active, payout = _read(
        call, AGENT_REGISTRY, "status(address)", who, [_AGENT, "bool", "address"]
    )
    return {
        "address": address_of(account_bytes(who)),
        "registered": since > 0,
        "active": active,
        "nodeId": name.rstrip(b"\0").decode("utf-8", "replace"),
        "lastHeartbeat": last,
        "registeredAt": since,
        "totalRewards": str(_read(call, REWARD_POOL, "claimed(address)", who, ["uint256"])[0]),
        "metadata": {
            "modelHash": "0x" + model.hex(),
            "samples": str(samples),
            "certificate": "0x" + certificate.hex(),
            "payout": address_of(account_bytes(payout)),
        },
    }


def _read(
    call: Call, contract: Address, signature: str, who: str, types: list[str]
) -> tuple[Any, ...]:
    return decode(
        types, call(contract, keccak256(signature.encode())[:4] + encode(["address"], [who]))
    )
