"""Calls and events of our contracts by their Solidity signatures: selectors, arguments, topics, and
why a call was refused.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from eth_abi import decode, encode
from eth_abi.exceptions import DecodingError

from contracts.endpoints import RpcError
from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.chain.keccak import keccak256

# Error(string): what a revert with a reason returns.
ERROR_STRING = bytes.fromhex("08c379a0")
MOST_REASON_CHARS = 200  # of what is passed on to a page


@cache
def selector(signature: str) -> bytes:
    """`claim(address,uint256,bytes32[])` -> 4 bytes."""
    return keccak256(signature.encode())[:4]


@cache
def topic(signature: str) -> str:
    """Topic 0 of an event, "0x" and 64 digits."""
    return "0x" + keccak256(signature.encode()).hex()


def types_of(signature: str) -> list[str]:
    """The types between the outermost brackets; our signatures take no tuples."""
    inside = signature[signature.index("(") + 1 : -1]
    return inside.split(",") if inside else []


def call_data(signature: str, *arguments: Any) -> bytes:
    """Raises `eth_abi.exceptions.EncodingError` for arguments that are not of these types."""
    return selector(signature) + encode(types_of(signature), list(arguments))


def returned(types: list[str], answer: Any) -> tuple[Any, ...]:
    """What a call returned.

    Raises `ChainUnreachable` for what cannot be that: a node that answers garbage, or an address
    that is not ours.
    """
    try:
        return tuple(decode(types, bytes.fromhex(str(answer).removeprefix("0x"))))
    except (DecodingError, ValueError, OverflowError) as error:
        raise ChainUnreachable(
            f"a call was answered with what is no ({', '.join(types)}): {str(error)[:MOST_REASON_CHARS]}"
        ) from None


def refusal(error: RpcError) -> ChainRefused:
    """The contract's own reason where there is one, else the node's words."""
    if error.data[:4] == ERROR_STRING:
        try:
            reason = str(decode(["string"], error.data[4:])[0])
        except (DecodingError, ValueError, OverflowError):
            reason = error.message
    else:
        reason = error.message.removeprefix("execution reverted: ")
    return ChainRefused(reason[:MOST_REASON_CHARS])
