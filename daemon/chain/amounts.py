"""Exact amounts of tokens that people type.

On the wire and in JSON, amounts are base units as text, which `protocol.status.figures` writes.
"""

from __future__ import annotations

from protocol.errors import UserError
from protocol.status.figures import DECIMALS


def parse_tokens(text: str) -> int:
    """Convert an amount such as "12.5" to base units. Raises `UserError("AMOUNT")`."""
    whole, dot, part = text.replace(",", "").partition(".")
    if (
        not (whole + part).isascii()
        or not (whole + part).isdigit()
        or len(part) > DECIMALS
        or (dot and not part)
    ):
        raise UserError(
            "AMOUNT",
            f"{text!r} is not an amount.",
            why=f"an amount has digits only, at most {DECIMALS} of them after the point",
            exit_code=2,
        )
    return int((whole or "0") + part.ljust(DECIMALS, "0"))
