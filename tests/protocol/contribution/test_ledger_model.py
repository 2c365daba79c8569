"""The ledger beside an exact account: every sample counts once.

Random histories certify, drop, credit and restart a ledger. An account in float64 follows the
definition and says what the ledger must hold.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from protocol.codec import codec_named, entries
from protocol.contribution.ledger_disk import ledger_record, restore_ledger
from protocol.contribution.offer import NOTHING
from protocol.contribution.sent_offers import SENT_KEPT
from protocol.digest import merkle_root
from protocol.ports.disk_records import LedgerRecord
from tests.protocol.contribution.ledgers import (
    CAP,
    CARRY,
    PARAMETERS,
    RUN,
    TIP,
    Sum,
    decoded,
    new_ledger,
)


class Account:
    """The ledger's rules in float64, by their definition in `protocol/contribution/ledger.py`."""

    def __init__(self) -> None:
        # S and W of the definition.
        self.left: Sum = np.zeros(PARAMETERS)
        self.weight = 0
        # T and w up to the offer that was sent, and what was trained since.
        self.moved: Sum = np.zeros(PARAMETERS)
        self.samples = 0
        self.after: Sum = np.zeros(PARAMETERS)
        self.after_samples = 0
        # By seq: the factor, V decode(q), and the samples that are left.
        self.sent: dict[int, tuple[float, Sum, int]] = {}
        # The seq of the offer that was sent for this parent; 0 before.
        self.sent_seq = 0
        self.carried = 0
        # The largest value so far: float32 rounding is relative to it.
        self.scale = 1.0

    @property
    def pending(self) -> int:
        return self.weight + self.samples + self.after_samples

    def train(self, delta: Sum, samples: int) -> None:
        if self.sent_seq:
            self.after, self.after_samples = self.after + delta, self.after_samples + samples
        else:
            self.moved, self.samples = self.moved + delta, self.samples + samples

    def end(self) -> int:
        """End the trajectory, because the anchor moved; return the samples above the cap."""
        self.left = self.left + self.samples * self.moved
        self.weight += self.samples
        above = max(0, self.weight - CAP)
        if above:
            self._scaled(CAP / self.weight)
            self.weight = CAP
        self.moved, self.samples = self.after, self.after_samples
        self.after, self.after_samples, self.sent_seq = np.zeros(PARAMETERS), 0, 0
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
        self.carried, self.sent, self.sent_seq = 0, {}, 0

    def rounded(self) -> None:
        parts = (self.left, self.samples * self.moved, self.moved, self.after)
        self.scale = max(self.scale, *(float(np.abs(part).max()) for part in parts))


class LedgerHistory(RuleBasedStateMachine):
    """One ledger beside an exact account: each sample is certified, dropped or kept."""

    records = Bundle("records")

    @initialize(codec=st.sampled_from(sorted(entry.name for entry in entries())))
    def start(self, codec: str) -> None:
        self.codec = codec_named(codec)
        self.ledger = new_ledger(self.codec)
        self.account = Account()
        self.steps = 1
        self.certified: set[int] = set()
        # The highest seq that was offered.
        self.highest = 0

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
        if self.account.sent_seq:
            assert offer is standing, "a parent has one offer once it was sent"
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
    def mark_sent(self) -> None:
        self.ledger.mark_sent()
        offer = self.ledger.offer
        if offer.seq and not self.account.sent_seq:
            self.account.sent_seq = offer.seq

    @rule(data=st.data(), beside=st.booleans())
    def certified_with_us(self, data: st.DataObject, beside: bool) -> None:
        """A certificate lists the current offer or an earlier one that was sent."""
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
        if self.account.sent_seq:
            self.account.sent[offer.seq] = (
                1.0,
                decoded(self.ledger, offer) * offer.weight,
                offer.weight,
            )
            self.account.sent = dict(sorted(self.account.sent.items())[-SENT_KEPT:])
        assert self.ledger.settle(None, beside=True) == 0
        assert self.ledger.settle(None) == self.account.passed_by()
        assert self.ledger.drawn == 0, "the next round has its own lane"
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
        """Restart as after a crash: training since the record is lost.

        The disk has this record. The chain has the certificates since.
        """
        record, self.account, before = saved
        self.account = deepcopy(self.account)
        self.ledger = new_ledger(self.codec)
        restore_ledger(self.ledger, record, offer_sent=bool(self.account.sent_seq))
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
                if self.account.sent_seq and not current:
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


TestLedgerHistory = LedgerHistory.TestCase
TestLedgerHistory.settings = settings(max_examples=60, stateful_step_count=40)
