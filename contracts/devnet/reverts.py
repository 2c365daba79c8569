"""Refusals of transactions and calls, in geth's words."""

from __future__ import annotations

from eth.exceptions import Revert


class RpcRefusal(Exception):
    """The EVM refuses a transaction or a call.

    `output` is what a contract returned when it reverted.
    """

    def __init__(self, message: str, output: bytes | None = None) -> None:
        super().__init__(message)
        self.output = output


def refused(error: Exception, output: bytes) -> RpcRefusal:
    """Make the refusal of a failed computation."""
    if isinstance(error, Revert):
        reason = revert_reason(output)
        return RpcRefusal("execution reverted" + (f": {reason}" if reason else ""), output)
    return RpcRefusal(f"{type(error).__name__}: {error}")


def revert_reason(output: bytes) -> str:
    """Return the text of Error(string), whose selector is 0x08c379a0; "" for other output."""
    if output[:4] != bytes.fromhex("08c379a0") or len(output) < 68:
        return ""
    size = int.from_bytes(output[36:68], "big")
    return output[68 : 68 + size].decode("utf-8", "replace")
