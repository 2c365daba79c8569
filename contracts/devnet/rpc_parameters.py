"""Decodes the parameters of JSON-RPC calls."""

from __future__ import annotations

from typing import Any


def bytes_of(text: str) -> bytes:
    """Decode bytes in hex, with or without 0x."""
    return bytes.fromhex(text.removeprefix("0x"))


def int_of(value: Any) -> int:
    """Decode a hex quantity or a JSON number."""
    return int(value, 16) if isinstance(value, str) else int(value)


def account_of(who: str) -> bytes:
    """Decode an address. Raises `ValueError` for another length."""
    account = bytes_of(who)
    if len(account) != 20:
        raise ValueError(f"{who} is not an address")
    return account


def call_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Decode the object of eth_call. A call without `to` creates a contract."""
    return {
        "sender": account_of(asked.get("from", "0x" + "00" * 20)),
        "to": account_of(asked["to"]) if asked.get("to") else b"",
        "data": bytes_of(asked.get("data") or asked.get("input") or "0x"),
        "value": int_of(asked.get("value", "0x0")),
    }


def matches(topics: list[str], asked: list[Any]) -> bool:
    """Return whether an event's topics match the topics of a filter."""
    if len(asked) > len(topics):
        return False
    return all(
        want is None or topic in ([want] if isinstance(want, str) else want)
        for topic, want in zip(topics, asked, strict=False)
    )
