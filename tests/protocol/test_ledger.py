"""The ledger: whatever is certified, lost, credited or restarted, every sample is counted once."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import Codec, codec_named, entries
from protocol.contribution.ledger import Ledger
from protocol.contribution.ledger_disk import ledger_record, restore_ledger
from protocol.contribution.offer import NOTHING, Offer
from protocol.contribution.sent_offers import SENT_KEPT
from protocol.digest import EMPTY_ROOT, leaves_of, merkle_root
from protocol.errors import InvariantBroken
from protocol.ports.disk_records import LedgerRecord
from tests.protocol.rounds import named

PARAMETERS = 24
CAP, CARRY = 40, 3
RUN, TIP = named("run"), named("tip")
Sum = np.ndarray
"""Shape (parameters,), float64: what exact arithmetic says."""


def new_ledger(
    codec: Codec | None = None, parameters: int = PARAMETERS, cap: int = CAP, carry: int = CARRY
) -> Ledger:
    return Ledger(parameters, codec or codec_named("float32"), cap, carry)


def decoded(ledger: Ledger, offer: Offer) -> Sum:
    out = np.empty(PARAMETERS, np.float32)
    ledger.codec.decode(offer.encoded, out)
    return out.astype(np.float64)


def constant(value: float) -> np.ndarray:
    return np.full(PARAMETERS, value, np.float32)


class Account:
    """The rules again, in float64 and in the words of their definition: S, W, and what the
    trajectory is of.
    """

    def __init__(self) -> None:
        self.left: Sum = np.zeros(PARAMETERS)  # S
        self.weight = 0  # W
        self.moved: Sum = np.zeros(PARAMETERS)  # T up to the offer that was given out
        self.samples = 0  # w
        self.after: Sum = np.zeros(PARAMETERS)  # and since
        self.after_samples = 0
        self.sent: dict[int, tuple[float, Sum, int]] = {}  # seq: factor, V decode(q), samples left
        # The seq that was given out for this parent.
        self.given = 0
        self.carried = 0
        # The largest value so far: float32 rounding is relative to it.
        self.scale = 1.0

    @property
    def pending(self) -> int:
        return self.weight + self.samples + self.after_samples

    def train(self, delta: Sum, samples: int) -> None:
        if self.given:
            self.after, self.after_samples = self.after + delta, self.after_samples + samples
        else:
            self.moved, self.samples = self.moved + delta, self.samples + samples

    def end(self) -> int:
        """The anchor moved. Returns what is above the cap."""
        self.left = self.left + self.samples * self.moved
        self.weight += self.samples
        above = max(0, self.weight - CAP)
        if above:
            self._scaled(CAP / self.weight)
            self.weight = CAP
        self.moved, self.samples = self.after, self.after_samples
        self.after, self.after_samples, self.given = np.zeros(PARAMETERS), 0, 0
        return above

    def _scaled(self, factor: float) -> None:
        self.left = self.left * factor
        self.sent = {
            seq: (f * factor, part, int(left * factor))
            for seq, (f, part, left) in self.sent.items()
        }

    def passed_by(self) -> int:
        above = self.end()
        if not self.weight:
            return above
        self.carried += 1
        if self.carried == CARRY:
            above += self.weight
            self.left, self.weight, self.carried, self.sent = np.zeros(PARAMETERS), 0, 0, {}
            return above
        before = self.weight
        self._scaled(0.5)
        self.weight //= 2
        return above + before - self.weight

    def counted(self, seq: int) -> None:
        factor, part, left = self.sent[seq]
        self.left = self.left - factor * part
        self.weight -= left
        self.carried, self.sent, self.given = 0, {}, 0

    def rounded(self) -> None:
        parts = (self.left, self.samples * self.moved, self.moved, self.after)
        self.scale = max(self.scale, *(float(np.abs(part).max()) for part in parts))


class Life(RuleBasedStateMachine):
    """One node's ledger beside an exact account: what was learned is certified, dropped with
    notice, or still there.
    """

    records = Bundle("records")

    @initialize(codec=st.sampled_from(sorted(entry.name for entry in entries())))
    def born(self, codec: str) -> None:
        self.codec = codec_named(codec)
        self.ledger = new_ledger(self.codec)
        self.account = Account()
        self.steps = 1
        self.certified: set[int] = set()
        self.highest = 0  # seq ever offered

    @rule(
        seed=st.integers(0, 1 << 20),
        samples=st.integers(0, 60),
        magnitude=st.sampled_from([1e-4, 1.0, 300.0]),
    )
    def train(self, seed: int, samples: int, magnitude: float) -> None:
        delta = (np.random.default_rng(seed).standard_normal(PARAMETERS) * magnitude).astype(
            np.float32
        )
        drawn = self.ledger.drawn
        self.ledger.add(delta, samples)
        if samples:
            self.account.train(delta.astype(np.float64), samples)
        assert self.ledger.drawn == drawn + samples
        self._rounded()

    @rule()
    def offer(self) -> None:
        before, pending = self.ledger.next_seq, self.account.weight + self.account.samples
        standing = self.ledger.offer
        offer = self.ledger.make_offer()
        assert offer is self.ledger.offer
        if self.account.given:
            assert offer is standing, "one offer of a parent, once it was given out"
            return
        if not pending:
            assert offer is NOTHING
            return
        assert offer.seq == before > self.highest
        assert offer.weight == min(pending, CAP)
        assert offer.digest == merkle_root(offer.tree[0])
        assert len(offer.encoded) == self.codec.size(PARAMETERS)
        whole = (self.account.left + self.account.samples * self.account.moved) / pending
        if self.codec.lossless:
            assert np.allclose(
                decoded(self.ledger, offer), whole, rtol=0, atol=self._tolerance() / pending
            )
        self.highest = offer.seq

    @rule()
    def give_out(self) -> None:
        self.ledger.give_out()
        offer = self.ledger.offer
        if offer.seq and not self.account.given:
            self.account.given = offer.seq

    @rule(data=st.data(), beside=st.booleans())
    def certified_with_us(self, data: st.DataObject, beside: bool) -> None:
        """What is on offer, or what was given out before."""
        known = {seq: kept.offer for seq, kept in self.ledger.sent.pending.items()}
        if self.ledger.offer.weight:
            known[self.ledger.offer.seq] = self.ledger.offer
        assert len(known) <= SENT_KEPT + 1
        if not known:
            return
        offer = known[data.draw(st.sampled_from(sorted(known)))]
        assert offer.seq not in self.certified, "certified twice"
        part = decoded(self.ledger, offer) * offer.weight
        current = offer is self.ledger.offer
        dropped = self.ledger.settle(offer.seq, beside=beside)
        above = self.account.end() if current or not beside else 0
        if current:
            self.account.sent[offer.seq] = (1.0, part, offer.weight)
        assert dropped == above
        self.account.counted(offer.seq)
        self.certified.add(offer.seq)
        self._rounded()

    @rule()
    def certified_without_us(self) -> None:
        offer = self.ledger.offer
        if self.account.given:
            self.account.sent[offer.seq] = (
                1.0,
                decoded(self.ledger, offer) * offer.weight,
                offer.weight,
            )
            self.account.sent = dict(sorted(self.account.sent.items())[-SENT_KEPT:])
        assert self.ledger.settle(None, beside=True) == 0
        assert self.ledger.settle(None) == self.account.passed_by()
        assert self.ledger.drawn == 0, "the next round has a lane of its own"
        self._rounded()

    @rule(start=st.integers(0, PARAMETERS - 1), seed=st.integers(0, 99))
    def reduced_a_slice(self, start: int, seed: int) -> None:
        error = np.random.default_rng(seed).standard_normal(PARAMETERS - start).astype(np.float32)
        self.ledger.credit(start, error)
        self.account.left[start:] += error
        self._rounded()

    @rule(target=records)
    def written(self) -> tuple[LedgerRecord, Account, frozenset[int]]:
        record = ledger_record(self.ledger, RUN, TIP)
        assert record.residue is self.ledger.residue
        return deepcopy(record), deepcopy(self.account), frozenset(self.certified)

    @rule(saved=consumes(records))
    def restarted(self, saved: tuple[LedgerRecord, Account, frozenset[int]]) -> None:
        """The disk has this record; the chain says what was certified since.

        As after a crash: what was learned since is gone.
        """
        record, self.account, before = saved
        self.account = deepcopy(self.account)
        self.ledger = new_ledger(self.codec)
        restore_ledger(self.ledger, record, given=bool(self.account.given))
        self.ledger.settled = max(before, default=0)
        for seq in sorted(self.certified - before):
            offer = self.ledger.offer
            current = offer.seq == seq
            if current:
                part = (1.0, decoded(self.ledger, offer) * offer.weight, offer.weight)
            pending = self.ledger.pending
            known = current or seq in self.ledger.sent.pending
            dropped = self.ledger.settle(seq)
            if known:
                if self.account.given and not current:
                    self.account.sent[offer.seq] = (
                        1.0,
                        decoded(self.ledger, offer) * offer.weight,
                        offer.weight,
                    )
                assert dropped == self.account.end()
                if current:
                    self.account.sent[seq] = part
                self.account.counted(seq)
            else:
                assert dropped == pending
                self.account = Account()
                assert not self.ledger.residue.any()
        self.highest = max(self.certified, default=0)
        assert self.ledger.next_seq > self.highest, "a certified seq would be offered again"
        self._rounded()

    def _rounded(self) -> None:
        self.account.rounded()
        self.steps += 2

    def _tolerance(self) -> float:
        return self.steps * self.account.scale * 2.4e-7

    @invariant()
    def nothing_is_lost_and_nothing_counted_twice(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.pending == self.account.pending
            assert (self.ledger.weight, self.ledger.carried) == (
                self.account.weight,
                self.account.carried,
            )
            assert np.allclose(
                self.ledger.residue, self.account.left, rtol=0, atol=self._tolerance()
            )
            local = self.ledger.local
            moved = self.account.moved + self.account.after
            assert np.allclose(
                np.zeros(PARAMETERS) if local is None else local,
                moved,
                rtol=0,
                atol=self._tolerance(),
            )


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)


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


# ---------------------------------------------------------------------------------------- golden traces


def test_rounds_alone_are_offered_as_one_displacement() -> None:
    """Golden: three rounds alone, never given out, then a friend.

    The offer is where the node stands, with all its samples.
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
    ledger.give_out()
    assert ledger.settle(offer.seq) == 0
    assert (ledger.pending, ledger.rounds, ledger.drawn, ledger.local) == (0, 0, 0, None)
    assert not ledger.residue.any()


def test_trajectories_are_averaged_by_samples() -> None:
    """Golden: an offer that was passed by waits at half its weight, and is averaged with the next
    trajectory.
    """
    ledger = new_ledger(cap=1000)
    ledger.add(constant(4.0), 60)
    ledger.make_offer()
    ledger.give_out()
    assert ledger.settle(None) == 30
    assert (ledger.weight, ledger.carried) == (30, 1)
    assert (ledger.residue == 120.0).all()
    ledger.add(constant(1.0), 10)
    offer = ledger.make_offer()
    assert offer.weight == 40
    assert (decoded(ledger, offer) == (30 * 4.0 + 10 * 1.0) / 40).all()


def test_a_late_listing_takes_out_what_is_left_of_it() -> None:
    """Golden: seq 1 is passed by twice (a quarter is left), then another branch turns out to list
    it.
    """
    ledger = new_ledger(cap=1000)
    ledger.add(constant(4.0), 60)
    first = ledger.make_offer()
    ledger.give_out()
    assert ledger.settle(None) == 30
    ledger.add(constant(1.0), 8)
    ledger.make_offer()
    ledger.give_out()
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
    assert (ledger.residue == 4.0).all(), "what is left is half of the second trajectory"


def test_work_that_nobody_lists_is_dropped_after_three_certificates() -> None:
    ledger = new_ledger(cap=1000)
    ledger.add(constant(1.0), 100)
    assert [ledger.settle(None) for _ in range(CARRY + 1)] == [50, 25, 25, 0]
    assert not ledger.residue.any()
    assert ledger.pending == 0


def test_steps_after_an_offer_begin_the_next_trajectory() -> None:
    """Golden: the offer was given out, its view failed, the node trained on; then the offer is
    certified after all.
    """
    ledger = new_ledger(cap=1000)
    ledger.add(constant(2.0), 20)
    offer = ledger.make_offer()
    ledger.give_out()
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
        "the next parameters are the new anchor less what came after the offer"
    )


def test_the_cap_bounds_the_weight_and_not_the_displacement() -> None:
    """A node that was alone for long: its first certificate takes the anchor all the way, and
    nothing of it comes a second time.
    """
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


def test_what_a_heavy_round_lost_in_encoding_is_the_errors_of_one_round() -> None:
    """int4 rounds a displacement of 100 rounds coarsely.

    At its weight, that error would be a hundred times the next round's work.
    """
    ledger = new_ledger(codec_named("int4"), cap=1 << 20)
    delta = np.linspace(-1, 1, PARAMETERS, dtype=np.float32)
    for _ in range(100):
        ledger.add(delta, 10)
        offer = ledger.make_offer()
    ledger.settle(offer.seq, share=1 / ledger.rounds)
    ledger.add(delta, 10)
    second = ledger.make_offer()
    exact = 100 * delta - decoded_of(ledger, offer)
    assert np.abs(decoded_of(ledger, second) - delta).max() <= 1.2 * np.abs(exact).max()


def decoded_of(ledger: Ledger, offer: Offer) -> np.ndarray:
    return decoded(ledger, offer).astype(np.float32)


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
