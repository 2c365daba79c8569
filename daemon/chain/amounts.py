"""Amounts that people type: tokens, exact.

On the wire and in JSON they are base units, as text; `protocol.status.figures` writes them.
"""

from __future__ import annotations

from protocol.errors import UserError
from protocol.status.figures import DECIMALS


def parse_tokens(text: str) -> int:
    """Base units of "12.5". Raises `UserError("AMOUNT")`."""
    whole, dot, part = text.replace(",", "").partition(".")
    if (
        not (whole + part).isascii()
        or not (whole + part).isdigit()
        or len(part) > DECIMALS
        or (dot and not part)
    ):
        raise UserError(
            "AMOUNT",
            f"{text!r} is no amount.",
            why=f"an amount is digits, with at most {DECIMALS} after the point",
            exit_code=2,
        )
    return int((whole or "0") + part.ljust(DECIMALS, "0"))
