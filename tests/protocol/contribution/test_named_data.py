"""Which samples an offer names, through certificates that count it, or do not."""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named
from protocol.contribution.ledger import Ledger
from protocol.contribution.named_data import NamedData
from protocol.messages.offer import MAX_STRETCHES, DataStretch

T1, T2, T3 = (bytes([i]) * 32 for i in (1, 2, 3))


def work() -> Vector:
    return np.ones(4, np.float32)


def new_ledger() -> Ledger:
    return Ledger(4, codec_named("float32"), 1000, 3)


def stretch(tip: bytes, first: int, count: int = 10) -> DataStretch:
    return DataStretch(tip=tip, first=first, count=count)


def test_named_data_of_a_counted_offer_is_not_named_again() -> None:
    ledger = new_ledger()
    ledger.add(work(), 10, stretch=stretch(T1, 0))
    ledger.add(work(), 10, stretch=stretch(T1, 10))
    offer = ledger.make_offer()
    ledger.mark_sent()
    assert ledger.data.named == (stretch(T1, 0, 20),)
    ledger.add(work(), 10, stretch=stretch(T1, 500))
    assert ledger.data.named == (stretch(T1, 0, 20),), "steps after the offer are of the next one"
    ledger.settle(offer.seq)
    assert ledger.data.named == (stretch(T1, 500),)


def test_named_data_of_an_offer_that_waits_goes_into_the_next_one() -> None:
    ledger = new_ledger()
    ledger.add(work(), 10, stretch=stretch(T1, 0))
    ledger.make_offer()
    ledger.mark_sent()
    ledger.settle(None)
    ledger.add(work(), 30, stretch=stretch(T2, 0, 30))
    assert ledger.data.named == (stretch(T1, 0), stretch(T2, 0, 30))
    offer = ledger.make_offer()
    ledger.mark_sent()
    ledger.settle(offer.seq)
    assert ledger.data.named == ()


def test_named_data_is_gone_with_dropped_work() -> None:
    ledger = new_ledger()
    ledger.add(work(), 10, stretch=stretch(T1, 0))
    ledger.drop(5)
    assert ledger.data.named == ()
    ledger.add(work(), 10, stretch=stretch(T1, 0))
    for _ in range(3):
        ledger.settle(None)
    assert ledger.pending == 0
    assert ledger.data.named == ()


def test_named_data_names_the_longest_stretches() -> None:
    data = NamedData()
    for number in range(12):
        data.add(stretch(T1, 1000 * number, 10 + number % 7), offer_sent=False)
    named = data.named
    assert len(named) == MAX_STRETCHES
    assert {each.count for each in named} == {16, 15, 14}


def test_named_data_stays_bounded() -> None:
    data = NamedData()
    for number in range(500):
        data.add(stretch(T1, 1000 * number), offer_sent=number % 2 == 0)
        data.end()
    assert len(data.named) <= MAX_STRETCHES
    assert len(data._waiting) <= 16
