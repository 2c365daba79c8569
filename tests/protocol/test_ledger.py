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
    """Error feedback: what bfloat16 rounds away in one round is in the next offers; on the average
    nothing is lost.
    """
    ledger = new_ledger(codec_named("bfloat16"))
    delta = constant(1 + 2**-10)  # rounds to 1
    total = np.zeros(PARAMETERS)
    for _ in range(200):
        ledger.add(delta, 8)
        offer = ledger.make_offer()
        total += decoded(ledger, offer) * offer.weight
        ledger.settle(offer.seq)
    assert np.allclose(total, 200 * 8 * (1 + 2**-10), atol=8 * 2**-7)
    assert (np.abs(ledger.residue) <= 8 * 2**-7).all()


def test_a_ledger_knows_the_offers_that_it_made_and_those_before_them() -> None:
    """One that was restored from an older copy does not know what was certified since."""
    ledger = new_ledger(cap=1000)
    assert not ledger.knows(1)
    ledger.add(constant(1.0), 10)
    offer = ledger.make_offer()
    assert ledger.knows(offer.seq)
    assert not ledger.knows(offer.seq + 1)
    ledger.give_out()
    ledger.settle(offer.seq)
    assert ledger.knows(offer.seq)


def test_nothing_is_offered_for_nothing() -> None:
    ledger = new_ledger()
    ledger.add(constant(1.0), 0)
    ledger.credit(0, constant(1.0))
    assert ledger.make_offer() is NOTHING
    assert (NOTHING.seq, NOTHING.weight, NOTHING.digest) == (0, 0, EMPTY_ROOT)
    assert ledger.residue.all(), "what a reducer was credited waits for the next training"


def test_a_ledger_of_another_model_is_refused() -> None:
    record = ledger_record(new_ledger(parameters=PARAMETERS + 1), RUN, TIP)
    with pytest.raises(InvariantBroken, match="25 parameters"):
        restore_ledger(new_ledger(), record)


def test_leaves_are_chunks_of_the_encoding() -> None:
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


@pytest.mark.parametrize("phase", ["trained", "offered", "given out", "trained on", "passed by"])
def test_a_restart_goes_on_where_the_ledger_stood(phase: str) -> None:
    """At each phase: the same offer, the same local parameters, the same account of what a
    certificate takes out.
    """
    ledger = new_ledger(cap=1000)
    ledger.add(constant(2.0), 20)
    offer = NOTHING
    if phase != "trained":
        offer = ledger.make_offer()
    if phase not in ("trained", "offered"):
        ledger.give_out()
    if phase == "trained on":
        ledger.add(constant(1.0), 5)
        ledger.make_offer()
    if phase == "passed by":
        ledger.settle(None)
    back = new_ledger(cap=1000)
    restore_ledger(back, deepcopy(ledger_record(ledger, RUN, TIP)), given=ledger.given)
    for life in (ledger, back):
        life.add(constant(0.25), 4)
        life.make_offer()
    assert (back.offer, back.given, back.pending, back.drawn, back.rounds) == (
        ledger.offer,
        ledger.given,
        ledger.pending,
        ledger.drawn,
        ledger.rounds,
    )
    assert ledger.local is not None
    assert back.local is not None
    assert (back.local == ledger.local).all()
    if ledger.given or phase == "passed by":
        for life in (ledger, back):
            assert life.settle(offer.seq) == 0
        assert back.pending == ledger.pending
        assert (back.residue == ledger.residue).all()


def test_a_restart_from_an_older_ledger_loses_steps_and_doubles_none() -> None:
    """The disk has the ledger of before seq 2; the chain lists seq 2.

    What the old ledger holds may be in it.
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
