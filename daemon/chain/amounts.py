"""Amounts for people: tokens of 18 decimals, exact. On the wire and in JSON they are base units, as text."""

from __future__ import annotations

from protocol.errors import UserError

DECIMALS = 18


def tokens(amount: int) -> str:
    """12.5, 0.000000000000000001: every digit that is there, none that is not."""
    whole, part = divmod(amount, 10**DECIMALS)
    text = f"{whole:,}"
    return f"{text}.{part:018d}".rstrip("0") if part else text


def parse_tokens(text: str) -> int:
    """Base units of "12.5". Raises `UserError("AMOUNT")`."""
    whole, dot, part = text.replace(",", "").partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or len(part) > DECIMALS or (dot and not part):
        raise UserError(
            "AMOUNT", f"{text!r} is no amount.", why=f"an amount is digits, with at most {DECIMALS} after the point", exit_code=2
        )
    return int((whole or "0") + part.ljust(DECIMALS, "0"))
