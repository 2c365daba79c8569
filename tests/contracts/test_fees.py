"""The fee that a transaction offers, and replacements that a node accepts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.fees import Fees, Market, capped, fees_for, raised

amounts = st.integers(0, 10**15)


def test_a_chain_without_base_fee_gets_a_legacy_price() -> None:
    assert fees_for(Market(base=None, price=7)) == Fees(most=7)
    assert fees_for(Market(base=10, tip=3)) == Fees(most=23, tip=3)


@given(amounts, amounts, amounts, amounts)
def test_a_replacement_offers_at_least_a_tenth_more_and_the_market_price(
    base: int, tip: int, new_base: int, new_tip: int
) -> None:
    first = fees_for(Market(base=base, tip=tip))
    market = Market(base=new_base, tip=new_tip)
    second = raised(first, market)
    assert first.tip is not None
    assert second.tip is not None
    assert second.most * 10 >= first.most * 11
    assert second.tip * 10 >= first.tip * 11
    assert second.most >= fees_for(market).most
    assert second.tip <= second.most


@given(amounts, amounts)
def test_a_legacy_price_stays_legacy_and_rises(price: int, now: int) -> None:
    second = raised(Fees(most=price), Market(base=None, price=now))
    assert second.legacy
    assert second.most * 10 >= price * 11
    assert second.most >= now


def test_no_fee_exceeds_the_ceiling() -> None:
    assert capped(Fees(most=100, tip=50), 30) == Fees(most=30, tip=30)
    assert capped(Fees(most=100), 30) == Fees(most=30)
    assert capped(Fees(most=20, tip=5), 30) == Fees(most=20, tip=5)
