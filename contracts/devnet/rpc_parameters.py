"""Parameters of JSON-RPC calls, decoded."""

from __future__ import annotations

from typing import Any


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def int_of(value: Any) -> int:
    return int(value, 16) if isinstance(value, str) else int(value)


def account_of(who: str) -> bytes:
    account = bytes_of(who)
    if len(account) != 20:
        raise ValueError(f"{who} is not an address")
    return account


def call_of(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "sender": account_of(asked.get("from", "0x" + "00" * 20)),
        "to": account_of(asked["to"]) if asked.get("to") else b"",  # none: it makes a contract
        "data": bytes_of(asked.get("data") or asked.get("input") or "0x"),
        "value": int_of(asked.get("value", "0x0")),
    }


def matches(topics: list[str], asked: list[Any]) -> bool:
    if len(asked) > len(topics):
        return False
    return all(
        want is None or topic in ([want] if isinstance(want, str) else want)
        for topic, want in zip(topics, asked, strict=False)
    )
