"""What a transaction offers for its gas, and how much more when it is stuck.

Pure; amounts in base units per gas.

With EIP-1559 the most that is paid is twice the base fee and a tip: enough for six full blocks in a
row (1.125 ** 6 = 2.03). A chain whose blocks name no base fee gets a legacy gas price. A
replacement must offer a tenth more for geth to take it; an eighth more is offered, and never less
than the market asks now.
"""

from __future__ import annotations

import msgspec

GWEI = 10**9
# Where the node does not say; what geth suggests on a quiet chain.
DEFAULT_TIP = GWEI
RAISE_NUMERATOR, RAISE_DENOMINATOR = 9, 8


class Fees(msgspec.Struct, frozen=True, kw_only=True):
    """`tip` None: a legacy gas price, which is `most`."""

    most: int
    tip: int | None = None

    @property
    def legacy(self) -> bool:
        return self.tip is None


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain asks now. `base` None: no EIP-1559; then `price` is the gas price."""

    base: int | None
    tip: int = DEFAULT_TIP
    price: int = 0


def fees_for(market: Market) -> Fees:
    """What a new transaction offers."""
    if market.base is None:
        return Fees(most=market.price)
    return Fees(most=2 * market.base + market.tip, tip=market.tip)


def _raise(amount: int) -> int:
    return -(-amount * RAISE_NUMERATOR // RAISE_DENOMINATOR) + 1


def raised(fees: Fees, market: Market) -> Fees:
    """What takes the place of a transaction that offered `fees`, and has a chance now."""
    asked = fees_for(market)
    # A transaction stays of its kind, or of the kind the chain knows now.
    if fees.tip is None or asked.tip is None:
        return Fees(
            most=max(_raise(fees.most), asked.most), tip=asked.tip if fees.tip is not None else None
        )
    return Fees(most=max(_raise(fees.most), asked.most), tip=max(_raise(fees.tip), asked.tip))


def capped(fees: Fees, ceiling: int) -> Fees:
    """Never more than the owner allows."""
    most = min(fees.most, ceiling)
    return Fees(most=most, tip=None if fees.tip is None else min(fees.tip, most))
