"""Encodes calls to contracts and decodes their answers, events and refusals.

A call or an event is named by its Solidity signature.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from eth_abi import decode, encode
from eth_abi.exceptions import DecodingError

from contracts.endpoints import RpcError
from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.chain.keccak import keccak256

# Error(string), which a revert with a reason returns.
ERROR_STRING = bytes.fromhex("08c379a0")
# A longer reason is cut before a page shows it.
MAX_REASON_CHARS = 200


@cache
def selector(signature: str) -> bytes:
    """Return the 4 bytes that select a function, such as `claim(address,uint256,bytes32[])`."""
    return keccak256(signature.encode())[:4]


@cache
def topic(signature: str) -> str:
    """Return the first topic of an event: "0x" and 64 digits."""
    return "0x" + keccak256(signature.encode()).hex()


def types_of(signature: str) -> list[str]:
    """Return the argument types of a signature. Signatures with tuples are not supported."""
    inside = signature[signature.index("(") + 1 : -1]
    return inside.split(",") if inside else []


def call_data(signature: str, *arguments: Any) -> bytes:
    """Encode a call.

    Raises `eth_abi.exceptions.EncodingError` for arguments of other types.
    """
    return selector(signature) + encode(types_of(signature), list(arguments))


def returned(types: list[str], answer: Any) -> tuple[Any, ...]:
    """Decode what a call returned.

    Raises `ChainUnreachable` for other bytes: the node answers garbage, or the address has another
    contract.
    """
    try:
        return tuple(decode(types, bytes.fromhex(str(answer).removeprefix("0x"))))
    except (DecodingError, ValueError, OverflowError) as error:
        raise ChainUnreachable(
            f"a call's answer is not ({', '.join(types)}): {str(error)[:MAX_REASON_CHARS]}"
        ) from None


def refusal(error: RpcError) -> ChainRefused:
    """Return the refusal with the contract's reason, or else with the node's message."""
    if error.data[:4] == ERROR_STRING:
        try:
            reason = str(decode(["string"], error.data[4:])[0])
        except (DecodingError, ValueError, OverflowError):
            reason = error.message
    else:
        reason = error.message.removeprefix("execution reverted: ")
    return ChainRefused(reason[:MAX_REASON_CHARS])
