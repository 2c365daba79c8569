"""The ledger: whatever is certified, lost, credited or restarted, every sample is counted once."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from protocol.codec import CODECS, Codec, codec_named
from protocol.digest import EMPTY_ROOT, leaves_of, merkle_root
from protocol.errors import InvariantBroken
from protocol.layout import CHUNK_ELEMENTS
from protocol.ledger import NOTHING, SENT_KEPT, Ledger, Offer
from protocol.ports import LedgerRecord
from tests.protocol.rounds import named

PARAMETERS = 24
CAP, CARRY = 40, 3
RUN, TIP = named("run"), named("tip")
Sum = np.ndarray
"""Shape (parameters,), float64: what exact arithmetic says."""


def new_ledger(codec: Codec | None = None, parameters: int = PARAMETERS) -> Ledger:
    return Ledger(parameters, codec or codec_named("float32"), CAP, CARRY)


def decoded(ledger: Ledger, offer: Offer) -> Sum:
    out = np.empty(PARAMETERS, np.float32)
    ledger.codec.decode(offer.encoded, out)
    return out.astype(np.float64)


class Life(RuleBasedStateMachine):
    """One node's ledger beside an exact account: what was learned is certified, dropped with notice, or still in the residue."""

    records = Bundle("records")

    @initialize(codec=st.sampled_from(sorted(CODECS)))
    def born(self, codec: str) -> None:
        self.codec = codec_named(codec)
        self.ledger = new_ledger(self.codec)
        self.owed: Sum = np.zeros(PARAMETERS)  # learned and credited, less what was certified or dropped
        self.samples = 0
        self.scale = 1.0  # the largest sum so far: float32 rounding is relative to it
        self.steps = 1
        self.certified: set[int] = set()
        self.highest = 0  # seq ever offered

    @rule(seed=st.integers(0, 1 << 20), samples=st.integers(0, 60), magnitude=st.sampled_from([1e-4, 1.0, 300.0]))
    def train(self, seed: int, samples: int, magnitude: float) -> None:
        delta = (np.random.default_rng(seed).standard_normal(PARAMETERS) * magnitude).astype(np.float32)
        self.ledger.add(delta, samples)
        self.owed += delta.astype(np.float64) * samples
        self.samples += samples
        self._rounded()

    @rule()
    def offer(self) -> None:
        before, pending = self.ledger.next_seq, self.ledger.weight
        offer = self.ledger.make_offer()
        assert offer is self.ledger.offer
        if not pending:
            assert offer is NOTHING
            return
        assert offer.seq == before
        assert offer.seq > self.highest
        assert offer.weight == min(pending, CAP)
        assert offer.digest == merkle_root(offer.tree[0])
        assert len(offer.encoded) == self.codec.size(PARAMETERS)
        self.highest = offer.seq

    @rule()
    def give_out(self) -> None:
        self.ledger.give_out()

    @rule(data=st.data())
    def certified_with_us(self, data: st.DataObject) -> None:
        """What is on offer, or what was given out before."""
        known = {offer.seq: offer for offer in (*self.ledger._sent.values(), self.ledger.offer) if offer.weight}
        assert len(known) <= SENT_KEPT + 1
        if known:
            offer = known[data.draw(st.sampled_from(sorted(known)))]
            part = decoded(self.ledger, offer) * offer.weight
            assert offer.seq not in self.certified, "certified twice"
            assert self.ledger.settle(offer.seq) == 0
            self.certified.add(offer.seq)
            self.owed -= part
            self.samples -= offer.weight
            self._rounded()

    @rule()
    def certified_without_us(self) -> None:
        held, carried = self.ledger.weight, self.ledger.carried
        dropped = self.ledger.settle(None)
        assert dropped == (held if held and carried == CARRY else 0)
        if dropped:
            self._dropped()

    @rule(start=st.integers(0, PARAMETERS - 1), seed=st.integers(0, 99))
    def reduced_a_slice(self, start: int, seed: int) -> None:
        error = np.random.default_rng(seed).standard_normal(PARAMETERS - start).astype(np.float32)
        self.ledger.credit(start, error)
        self.owed[start:] += error
        self._rounded()

    @rule(target=records)
    def written(self) -> tuple[LedgerRecord, Sum, int, frozenset[int], frozenset[int]]:
        record = self.ledger.record(RUN, TIP)
        assert record.residue is self.ledger.residue
        known = {offer.seq for offer in (*self.ledger._sent.values(), self.ledger.offer) if offer.weight}
        return deepcopy(record), self.owed.copy(), self.samples, frozenset(known), frozenset(self.certified)

    @rule(saved=consumes(records))
    def restarted(self, saved: tuple[LedgerRecord, Sum, int, frozenset[int], frozenset[int]]) -> None:
        """The disk has this record; the chain says what was certified since. As after a crash: what was learned since is gone."""
        record, self.owed, self.samples, known, before = saved[0], saved[1].copy(), *saved[2:]
        self.ledger = new_ledger(self.codec)
        self.ledger.restore(record)
        self.ledger.settled = max(before, default=0)
        kept = dict(sorted(self.ledger._sent.items()))
        assert known - set(kept) <= {min(known, default=0)}, "one is let go at most, for the current one"
        for seq in sorted(self.certified - before):
            held = self.ledger.weight
            dropped = self.ledger.settle(seq)
            if seq in kept:
                assert dropped == 0
                self.owed -= decoded(self.ledger, kept[seq]) * kept[seq].weight
                self.samples -= kept[seq].weight
            else:
                assert dropped == held
                self._dropped()
            kept = {}  # offers made after it hold its work too
        self.highest = max(self.certified, default=0)
        assert self.ledger.next_seq > self.highest, "a certified seq would be offered again"
        self._rounded()

    def _rounded(self) -> None:
        self.scale = max(self.scale, float(np.abs(self.owed).max()))
        self.steps += 2

    def _dropped(self) -> None:
        self.owed = np.zeros(PARAMETERS)
        self.samples = 0
        assert not self.ledger.residue.any()
        assert self.ledger.carried == 0

    @invariant()
    def nothing_is_lost_and_nothing_counted_twice(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.weight == self.samples
            assert np.allclose(self.ledger.residue, self.owed, rtol=0, atol=self.steps * self.scale * 1.2e-7)
            assert self.ledger.carried <= CARRY


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=30)


def test_quantization_errors_are_offered_again() -> None:
    """Error feedback: what bfloat16 rounds away in one round is in the next offers; on the average nothing is lost."""
    ledger = new_ledger(codec_named("bfloat16"))
    delta = np.full(PARAMETERS, 1 + 2**-10, np.float32)  # rounds to 1
    total = np.zeros(PARAMETERS)
    for _ in range(200):
        ledger.add(delta, 8)
        offer = ledger.make_offer()
        total += decoded(ledger, offer) * offer.weight
        ledger.settle(offer.seq)
    assert np.allclose(total, 200 * 8 * (1 + 2**-10), atol=8 * 2**-7)
    assert (np.abs(ledger.residue) <= 8 * 2**-7).all()


def test_work_above_the_cap_waits() -> None:
    ledger = new_ledger()
    ledger.add(np.ones(PARAMETERS, np.float32), 3 * CAP)
    weights = []
    while (offer := ledger.make_offer()) is not NOTHING:
        assert np.allclose(decoded(ledger, offer), 1.0)
        weights.append(offer.weight)
        ledger.settle(offer.seq)
    assert weights == [CAP] * 3
    assert ledger.weight == 0
    assert np.allclose(ledger.residue, 0, atol=1e-4)


def test_an_offer_is_the_same_bytes_until_it_is_made_anew() -> None:
    """A later view offers what an earlier one did; only new training makes another offer, under another seq."""
    ledger = new_ledger()
    ledger.add(np.ones(PARAMETERS, np.float32), 5)
    first = ledger.make_offer()
    ledger.settle(None)
    assert ledger.offer is first
    second = ledger.make_offer()
    assert (second.seq, second.encoded) == (first.seq + 1, first.encoded)
    assert ledger.settle(first.seq) == 5  # an offer that is not known any more: dropped, never counted twice
    assert ledger.weight == 0
    assert ledger.next_seq > second.seq


def test_nothing_is_offered_for_nothing() -> None:
    ledger = new_ledger()
    ledger.add(np.ones(PARAMETERS, np.float32), 0)
    ledger.credit(0, np.ones(PARAMETERS, np.float32))
    assert ledger.make_offer() is NOTHING
    assert (NOTHING.seq, NOTHING.weight, NOTHING.digest) == (0, 0, EMPTY_ROOT)
    assert ledger.residue.all(), "what a reducer was credited waits for the next training"


def test_a_ledger_of_another_model_is_refused() -> None:
    record = new_ledger(parameters=PARAMETERS + 1).record(RUN, TIP)
    with pytest.raises(InvariantBroken, match="25 parameters"):
        new_ledger().restore(record)


def test_leaves_are_chunks_of_the_encoding() -> None:
    parameters = 2 * CHUNK_ELEMENTS + 5
    for codec in CODECS.values():
        ledger = new_ledger(codec, parameters)
        ledger.add(np.linspace(-1, 1, parameters, dtype=np.float32), 1)
        offer = ledger.make_offer()
        assert list(offer.tree[0]) == leaves_of(offer.encoded, codec.size(CHUNK_ELEMENTS))
        assert len(offer.tree[0]) == 3
        restored = new_ledger(codec, parameters)
        restored.restore(ledger.record(RUN, TIP))
        assert restored.offer == offer


def test_an_offer_that_was_given_out_is_known_after_a_restart() -> None:
    """Certified by others while this node trained on, made another offer and was started again: it dropped all that was pending."""
    ledger = new_ledger()
    ledger.add(np.full(PARAMETERS, 2.0, np.float32), 5)
    given_out = ledger.make_offer()
    ledger.give_out()
    ledger.add(np.full(PARAMETERS, 3.0, np.float32), 7)
    assert ledger.make_offer().weight == 12
    restarted = new_ledger()
    restarted.restore(deepcopy(ledger.record(RUN, TIP)))
    third = restarted.make_offer()
    again = new_ledger()
    again.restore(deepcopy(restarted.record(RUN, TIP)))
    for life in (restarted, again):
        assert life.settle(given_out.seq) == 0
        assert life.weight == 7
        assert np.allclose(life.residue, 3.0 * 7)
        assert life.next_seq > third.seq


def test_a_restart_from_an_older_ledger_loses_steps_and_doubles_none() -> None:
    """The disk has the ledger of before seq 2; the chain lists seq 2. What the old ledger holds may be in it."""
    ledger = new_ledger()
    ledger.add(np.ones(PARAMETERS, np.float32), 5)
    ledger.make_offer()
    record = deepcopy(ledger.record(RUN, TIP))
    ledger.add(np.ones(PARAMETERS, np.float32), 5)
    listed = ledger.make_offer()
    restarted = new_ledger()
    restarted.restore(record)
    assert restarted.next_seq == listed.seq
    assert restarted.settle(listed.seq) == 5
    assert (restarted.weight, restarted.next_seq) == (0, listed.seq + 1)
    assert not restarted.residue.any()
