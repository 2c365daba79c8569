"""Golden traces of the ledger: exact figures after each certificate, loss and restart."""

from __future__ import annotations

import numpy as np

from protocol.codec import codec_named
from tests.protocol.contribution.ledgers import (
    CAP,
    CARRY,
    PARAMETERS,
    constant,
    decoded,
    new_ledger,
)


def test_rounds_alone_are_offered_as_one_displacement() -> None:
    """A node trains three rounds alone and sends its first offer when a second node joins.

    The offer is the node's whole displacement, with all its samples.
    """
    ledger = new_ledger(cap=1000)
    for seq, (step, samples) in enumerate([(1.0, 10), (0.5, 30), (0.25, 20)], start=1):
        ledger.add(constant(step), samples)
        offer = ledger.make_offer()
        assert offer.seq == seq
    assert (offer.weight, ledger.rounds, ledger.drawn) == (60, 3, 60)
    assert (decoded(ledger, offer) == 1.75).all(), "the sum of the steps, not their mean of 0.5"
    assert ledger.local is not None
    assert (ledger.local == 1.75).all()
    ledger.mark_sent()
    assert ledger.settle(offer.seq) == 0
    assert (ledger.pending, ledger.rounds, ledger.drawn, ledger.local) == (0, 0, 0, None)
    assert not ledger.residue.any()


def test_trajectories_are_averaged_by_samples() -> None:
    """An offer that was not listed keeps half its weight and joins the next trajectory."""
    ledger = new_ledger(cap=1000)
    ledger.add(constant(4.0), 60)
    ledger.make_offer()
    ledger.mark_sent()
    assert ledger.settle(None) == 30
    assert (ledger.weight, ledger.carried) == (30, 1)
    assert (ledger.residue == 120.0).all()
    ledger.add(constant(1.0), 10)
    offer = ledger.make_offer()
    assert offer.weight == 40
    assert (decoded(ledger, offer) == (30 * 4.0 + 10 * 1.0) / 40).all()


def test_a_late_listing_subtracts_what_is_left_of_an_offer() -> None:
    """Two certificates do not list seq 1, so a quarter is left; then another branch lists it."""
    ledger = new_ledger(cap=1000)
    ledger.add(constant(4.0), 60)
    first = ledger.make_offer()
    ledger.mark_sent()
    assert ledger.settle(None) == 30
    ledger.add(constant(1.0), 8)
    ledger.make_offer()
    ledger.mark_sent()
    assert ledger.settle(None) == 19
    assert (
        ledger.weight,
        ledger.sent.pending[first.seq].factor,
        ledger.sent.pending[first.seq].left,
    ) == (
        19,
        0.25,
        15,
    )
    assert ledger.settle(first.seq, beside=True) == 0
    assert ledger.weight == 4
    assert (ledger.residue == 4.0).all(), "half of the second trajectory is left"


def test_work_that_no_certificate_lists_is_dropped_after_three() -> None:
    ledger = new_ledger(cap=1000)
    ledger.add(constant(1.0), 100)
    assert [ledger.settle(None) for _ in range(CARRY + 1)] == [50, 25, 25, 0]
    assert not ledger.residue.any()
    assert ledger.pending == 0


def test_steps_after_an_offer_begin_the_next_trajectory() -> None:
    """A certificate lists an offer after its view failed and the node trained on."""
    ledger = new_ledger(cap=1000)
    ledger.add(constant(2.0), 20)
    offer = ledger.make_offer()
    ledger.mark_sent()
    ledger.add(constant(0.5), 5)
    ledger.add(constant(0.5), 5)
    again = ledger.make_offer()
    assert again is offer, "same seq, same bytes"
    assert ledger.local is not None
    assert (ledger.local == 3.0).all()
    assert (ledger.pending, ledger.drawn) == (30, 30)
    assert ledger.settle(offer.seq) == 0
    assert (ledger.pending, ledger.samples, ledger.rounds, ledger.drawn) == (10, 10, 1, 0)
    assert not ledger.residue.any()
    assert ledger.local is not None
    assert (ledger.local == 1.0).all(), (
        "the next parameters are the new anchor minus the steps after the offer"
    )


def test_the_cap_bounds_the_weight_and_not_the_displacement() -> None:
    """The first certificate of a node that was alone for long counts its whole displacement."""
    ledger = new_ledger()
    for _ in range(3):
        ledger.add(constant(1.0), CAP)
        offer = ledger.make_offer()
    assert offer.weight == CAP
    assert (decoded(ledger, offer) == 3.0).all()
    assert ledger.settle(offer.seq) == 2 * CAP
    assert ledger.pending == 0
    assert np.allclose(ledger.residue, 0, atol=1e-4)
    ledger.add(constant(1.0), 3 * CAP)
    assert ledger.settle(None) == 2 * CAP + CAP // 2, "above the cap, and half of the rest"


def test_the_encoding_error_of_many_rounds_weighs_as_one_round() -> None:
    """int4 rounds a displacement of 100 rounds coarsely.

    With the weight of all rounds, the error would be a hundred times the next round's work.
    """
    ledger = new_ledger(codec_named("int4"), cap=1 << 20)
    delta = np.linspace(-1, 1, PARAMETERS, dtype=np.float32)
    for _ in range(100):
        ledger.add(delta, 10)
        offer = ledger.make_offer()
    ledger.settle(offer.seq, share=1 / ledger.rounds)
    ledger.add(delta, 10)
    second = ledger.make_offer()
    exact = 100 * delta - decoded(ledger, offer)
    assert np.abs(decoded(ledger, second) - delta).max() <= 1.2 * np.abs(exact).max()
