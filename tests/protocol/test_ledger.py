"""The ledger: what an offer holds, and how a ledger goes on after a restart."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import codec_named, entries
from protocol.contribution.ledger_disk import ledger_record, restore_ledger
from protocol.contribution.offer import NOTHING
from protocol.digest import EMPTY_ROOT, leaves_of
from protocol.errors import InvariantBroken
from tests.protocol.contribution.ledgers import (
    PARAMETERS,
    RUN,
    TIP,
    constant,
    decoded,
    new_ledger,
)


def test_quantization_errors_are_offered_again() -> None:
    """Later offers hold what bfloat16 rounds away in one round, so nothing is lost on average."""
    ledger = new_ledger(codec_named("bfloat16"))
    # bfloat16 rounds this value to 1.
    delta = constant(1 + 2**-10)
    total = np.zeros(PARAMETERS)
    for _ in range(200):
        ledger.add(delta, 8)
        offer = ledger.make_offer()
        total += decoded(ledger, offer) * offer.weight
        ledger.settle(offer.seq)
    assert np.allclose(total, 200 * 8 * (1 + 2**-10), atol=8 * 2**-7)
    assert (np.abs(ledger.residue) <= 8 * 2**-7).all()


def test_a_ledger_knows_the_offers_that_it_made_and_those_before_them() -> None:
    """A ledger that was restored from an older copy does not know later offers."""
    ledger = new_ledger(cap=1000)
    assert not ledger.knows(1)
    ledger.add(constant(1.0), 10)
    offer = ledger.make_offer()
    assert ledger.knows(offer.seq)
    assert not ledger.knows(offer.seq + 1)
    ledger.mark_sent()
    ledger.settle(offer.seq)
    assert ledger.knows(offer.seq)


def test_a_ledger_without_samples_offers_nothing() -> None:
    ledger = new_ledger()
    ledger.add(constant(1.0), 0)
    ledger.credit(0, constant(1.0))
    assert ledger.make_offer() is NOTHING
    assert (NOTHING.seq, NOTHING.weight, NOTHING.digest) == (0, 0, EMPTY_ROOT)
    assert ledger.residue.all(), "the credit of a reducer waits for the next training"


def test_a_ledger_of_another_model_is_refused() -> None:
    record = ledger_record(new_ledger(parameters=PARAMETERS + 1), RUN, TIP)
    with pytest.raises(InvariantBroken, match="25 parameters"):
        restore_ledger(new_ledger(), record)


def test_the_leaves_of_an_offer_are_chunks_of_its_encoding() -> None:
    parameters = 2 * CHUNK_ELEMENTS + 5
    for codec in [codec_named(entry.name) for entry in entries()]:
        ledger = new_ledger(codec, parameters)
        ledger.add(np.linspace(-1, 1, parameters, dtype=np.float32), 1)
        offer = ledger.make_offer()
        assert list(offer.tree[0]) == leaves_of(offer.encoded, codec.size(CHUNK_ELEMENTS))
        assert len(offer.tree[0]) == 3
        restored = new_ledger(codec, parameters)
        restore_ledger(restored, ledger_record(ledger, RUN, TIP))
        assert restored.offer == offer


@pytest.mark.parametrize("phase", ["trained", "offered", "sent", "trained on", "not listed"])
def test_a_restart_goes_on_where_the_ledger_stood(phase: str) -> None:
    """A restart in any phase keeps the offer, the local parameters and the pending samples."""
    ledger = new_ledger(cap=1000)
    ledger.add(constant(2.0), 20)
    offer = NOTHING
    if phase != "trained":
        offer = ledger.make_offer()
    if phase not in ("trained", "offered"):
        ledger.mark_sent()
    if phase == "trained on":
        ledger.add(constant(1.0), 5)
        ledger.make_offer()
    if phase == "not listed":
        ledger.settle(None)
    back = new_ledger(cap=1000)
    restore_ledger(back, deepcopy(ledger_record(ledger, RUN, TIP)), offer_sent=ledger.offer_sent)
    for each in (ledger, back):
        each.add(constant(0.25), 4)
        each.make_offer()
    assert (back.offer, back.offer_sent, back.pending, back.drawn, back.rounds) == (
        ledger.offer,
        ledger.offer_sent,
        ledger.pending,
        ledger.drawn,
        ledger.rounds,
    )
    assert ledger.local is not None
    assert back.local is not None
    assert (back.local == ledger.local).all()
    if ledger.offer_sent or phase == "not listed":
        for each in (ledger, back):
            assert each.settle(offer.seq) == 0
        assert back.pending == ledger.pending
        assert (back.residue == ledger.residue).all()


def test_a_restart_from_an_older_ledger_counts_no_step_twice() -> None:
    """The disk has the ledger from before seq 2, and the chain lists seq 2.

    Offer 2 may hold everything in the old ledger, so the old ledger drops it.
    """
    ledger = new_ledger()
    ledger.add(constant(1.0), 5)
    ledger.make_offer()
    record = deepcopy(ledger_record(ledger, RUN, TIP))
    ledger.add(constant(1.0), 5)
    listed = ledger.make_offer()
    restarted = new_ledger()
    restore_ledger(restarted, record)
    assert restarted.next_seq == listed.seq
    assert restarted.settle(listed.seq) == 5
    assert (restarted.pending, restarted.next_seq) == (0, listed.seq + 1)
    assert not restarted.residue.any()
