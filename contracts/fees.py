"""The fee that a transaction offers, and a higher one when it is stuck.

Amounts are base units per gas. With EIP-1559 a transaction offers at most twice the base fee plus a
tip, which is enough for six full blocks in a row (1.125 ** 6 = 2.03). On a chain without base fees
it offers a legacy gas price. geth accepts a replacement that offers a tenth more. An eighth
more is offered here, and never less than the market asks.
"""

from __future__ import annotations

import msgspec

GWEI = 10**9
# The tip if the node does not suggest one: geth's suggestion on a quiet chain.
DEFAULT_TIP = GWEI
RAISE_NUMERATOR, RAISE_DENOMINATOR = 9, 8


class Fees(msgspec.Struct, frozen=True, kw_only=True):
    """A fee offer. Without a `tip`, `most` is a legacy gas price."""

    most: int
    tip: int | None = None

    @property
    def legacy(self) -> bool:
        return self.tip is None


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain asks now. Without a `base` fee, `price` is the legacy gas price."""

    base: int | None
    tip: int = DEFAULT_TIP
    price: int = 0


def fees_for(market: Market) -> Fees:
    """Return the offer of a new transaction."""
    if market.base is None:
        return Fees(most=market.price)
    return Fees(most=2 * market.base + market.tip, tip=market.tip)


def _raise(amount: int) -> int:
    return -(-amount * RAISE_NUMERATOR // RAISE_DENOMINATOR) + 1


def raised(fees: Fees, market: Market) -> Fees:
    """Return the offer of a replacement for a transaction that offered `fees`."""
    asked = fees_for(market)
    # The replacement has the kind of the first transaction if the chain still has that kind.
    if fees.tip is None or asked.tip is None:
        return Fees(
            most=max(_raise(fees.most), asked.most), tip=asked.tip if fees.tip is not None else None
        )
    return Fees(most=max(_raise(fees.most), asked.most), tip=max(_raise(fees.tip), asked.tip))


def capped(fees: Fees, limit: int) -> Fees:
    """Limit an offer to what the owner allows."""
    most = min(fees.most, limit)
    return Fees(most=most, tip=None if fees.tip is None else min(fees.tip, most))
