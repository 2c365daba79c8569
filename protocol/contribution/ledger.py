"""The contributor's ledger: why no work is lost and none is counted twice.

A trajectory is training from one anchor without adopting another. Its displacement T is the anchor
minus the parameters, w its samples. Steps along a trajectory add up; trajectories are averaged,
weighted by samples. `residue` (S) and `weight` (W) hold what earlier trajectories left: the sum of
weight x displacement that is not certified, with the encoding's error, and its samples.

An offer is q = encode((S + wT) / (W + w)) with weight W + w, under the node's next `seq`. Until its
bytes are sent, later steps replace it by an offer of the whole displacement: a node that was alone
for long brings all of its work, and the anchor moves to its parameters. Once sent, it is the only
offer of its parent: every later view repeats it. Steps after it are kept apart (`later`); they
begin the trajectory from the next anchor.

- A certificate lists the offer: S += wT - (W + w) decode(q), W = 0.
- A certificate does not list it: S += wT, W += w. Then S, W and the factor f of every sent offer
  are halved, since work on an older anchor fits less well.
- A certificate lists an earlier offer, after a partition or a restart: S -= f (W + w) decode(q),
  W -= f (W + w).
- `max_carry_rounds` consecutive certificates list nothing of this node: S and W are dropped.

The ledger returns the number of dropped samples to its caller, who reports it.

The run's cap (`max_samples`) bounds the weight of an offer, never its displacement. What is above
the cap is dropped, and S with it in proportion. The offer already holds the whole displacement;
offering the surplus again would move the anchor by the same displacement a second time.
"""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec, chunk_bytes
from protocol.contribution.named_data import NamedData
from protocol.contribution.offer import AS_THEY_ARE, NOTHING, Offer, as_bytes
from protocol.contribution.sent_offers import PendingOffer, SentOffers
from protocol.digest import Buffer, leaves_of, levels_of, root_of
from protocol.errors import InvariantBroken
from protocol.messages.offer import DataStretch

PIECE_ELEMENTS = 64 * CHUNK_ELEMENTS
"""The elements that are encoded at a time. Every codec encodes each chunk by itself."""


class Ledger:
    """One node's ledger in one run.

    The ledger is mutable and holds vectors of shape (parameters,). Make a change durable before you
    tell others about it.
    """

    def __init__(
        self, parameters: int, codec: Codec, max_samples: int, max_carry_rounds: int
    ) -> None:
        self.codec = codec
        self.max_samples = max_samples
        self.max_carry_rounds = max_carry_rounds
        self.residue: Vector = np.zeros(parameters, np.float32)
        self.weight = 0
        # T, up to the offer once the offer was sent.
        self.displacement: Vector = np.zeros(parameters, np.float32)
        self.samples = 0  # w
        # The displacement after an offer that was sent.
        self.later: Vector | None = None
        self.later_samples = 0
        self.later_rounds = 0
        # The used samples of this round's lane, counted or not, without those of its reserve.
        self.drawn = 0
        # Rounds of training in the trajectory: how often something new was offered.
        self.rounds = 0
        self.next_seq = 1
        self.carried = 0
        self.offer = NOTHING
        # Whether the offer's bytes were sent: then it is the only offer of this parent.
        self.offer_sent = False
        # The last settled seq; every earlier offer is settled with it.
        self.settled = 0
        # Whether something was added since the last offer.
        self.grew = False
        # A certificate that is on its way may list any of them.
        self.sent = SentOffers()
        # The samples behind all of it.
        self.data = NamedData()

    @property
    def pending(self) -> int:
        """The samples that no certificate lists yet."""
        return self.weight + self.samples + self.later_samples

    @property
    def local(self) -> Vector | None:
        """The anchor minus the parameters that training resumes from; None where they are equal."""
        if self.later is None:
            return self.displacement if self.samples else None
        return self.displacement + self.later

    def add(
        self,
        delta: Vector,
        samples: int,
        *,
        drawn: int | None = None,
        stretch: DataStretch | None = None,
    ) -> None:
        """Add a stretch of training.

        Args:
            delta: the parameters before minus those after, finite, shape (parameters,).
            samples: the number of samples.
            drawn: how many samples were newly used of this round's lane; None: as many as were
                trained on. A stretch may also hold samples of the reserve (`Tip.reserve_lane`).
            stretch: names the samples; None where they are not known.
        """
        self.drawn += samples if drawn is None else drawn
        if not samples:
            return
        if stretch is not None:
            self.data.add(stretch, offer_sent=self.offer_sent)
        if self.offer_sent:
            if self.later is None:
                self.later = np.zeros_like(self.displacement)
            AS_THEY_ARE.add(as_bytes(delta), 1, self.later)
            self.later_samples += samples
        else:
            self.offer = NOTHING
            AS_THEY_ARE.add(as_bytes(delta), 1, self.displacement)
            self.samples += samples
        self.grew = True

    def make_offer(self, memory: memoryview | None = None) -> Offer:
        """Make the offer of this parent: the one that was sent, or else all that is pending.

        Args:
            memory: memory of an encoding's size to encode into.

        Raises:
            ValueError: the vector cannot be encoded.
        """
        grew, self.grew = self.grew, False
        if self.offer_sent:
            self.later_rounds += grew
            return self.offer
        self.rounds += grew
        self.offer = NOTHING
        total = self.weight + self.samples
        if total == 0:
            return NOTHING
        encoded: Buffer
        if memory is None:
            encoded = self.codec.encode(self._learned(), over=total)
        else:
            encoded = memory
            self._encode_into(total, memory)
        tree = levels_of(leaves_of(encoded, chunk_bytes(self.codec)))
        self.offer = Offer(
            seq=self.next_seq,
            weight=min(total, self.max_samples),
            encoded=encoded,
            tree=tree,
            digest=root_of(tree),
        )
        self.next_seq += 1
        return self.offer

    def _learned(self, start: int = 0, stop: int | None = None) -> Vector:
        """Compute elements `[start, stop)` of S + wT."""
        if not self.samples:
            return self.residue[start:stop]
        learned = self.residue[start:stop].copy()
        AS_THEY_ARE.add(as_bytes(self.displacement[start:stop]), self.samples, learned)
        return learned

    def _encode_into(self, total: int, memory: memoryview) -> None:
        """Encode (S + wT) / total piece by piece, so that S + wT is never in memory as a whole."""
        for start in range(0, self.residue.size, PIECE_ELEMENTS):
            stop = min(start + PIECE_ELEMENTS, self.residue.size)
            place = memory[self.codec.size(start) : self.codec.size(stop)]
            self.codec.encode_into(self._learned(start, stop), total, place)

    def mark_sent(self) -> None:
        """Note that the offer's bytes are sent.

        From now on a certificate may list it, and this parent gets no other offer.
        """
        self.offer_sent = bool(self.offer.seq)

    def knows(self, seq: int) -> bool:
        """Whether this ledger made offer `seq`, or settled it or a later one."""
        return seq <= self.settled or self.holds(seq)

    def holds(self, seq: int) -> bool:
        """Whether the work of offer `seq` waits here for a certificate."""
        return seq == self.offer.seq or seq in self.sent

    def settle(self, listed_seq: int | None, *, beside: bool = False, share: float = 1.0) -> int:
        """Settle a certificate that joined this node's ancestry.

        Args:
            listed_seq: the seq that it lists for this node; None when it lists none.
            beside: whether it is of a branch that a later certificate merges with this one. Such a
                certificate ends no trajectory and ages nothing.
            share: scales what the certificate's encoding lost
                (`protocol/contribution/round_share.py`).

        Returns:
            The dropped samples: half of what waits, all of it after `max_carry_rounds`, what is
            above the cap, or certified work that this ledger does not know after a restart from an
            older one. The last case loses a node's last steps; keeping them could count them twice.
        """
        if listed_seq is None or listed_seq <= self.settled:
            return 0 if beside else self._end() + self._age()
        if listed_seq == self.offer.seq:
            counted = PendingOffer(offer=self.offer, factor=1.0, left=self.offer.weight)
            dropped = self._end()
        elif listed_seq in self.sent:
            dropped = 0 if beside else self._end()
            counted = self.sent[listed_seq]
        else:
            self.drawn = 0
            return self.drop(listed_seq + 1)
        self.codec.add(counted.offer.encoded, -counted.factor * counted.offer.weight, self.residue)
        self.weight -= counted.left
        if self.weight < 0:
            raise InvariantBroken(
                f"the ledger was certified for {-self.weight} samples more than it held"
            )
        # S holds what the encoding lost, and nothing else.
        if self.weight == 0:
            self.residue *= np.float32(share)
            self.data.nothing_waits()
        self.carried = 0
        self.settled = listed_seq
        # Later offers hold its work, too. Should another branch certify one of them, only dropping
        # is safe.
        self.sent.clear()
        self.offer, self.offer_sent = NOTHING, False
        return dropped

    def _end(self) -> int:
        """End the trajectory: its work waits in S, and steps after its offer begin the next one.

        Returns:
            The samples above the cap.
        """
        offer = self.offer
        if self.samples:
            AS_THEY_ARE.add(as_bytes(self.displacement), self.samples, self.residue)
        self.weight += self.samples
        dropped = max(0, self.weight - self.max_samples)
        if dropped:
            self._scale(self.max_samples / self.weight)
            self.weight = self.max_samples
        if self.offer_sent:
            self.sent.add(offer)
        self.displacement, self.samples = (
            self.displacement if self.later is None else self.later,
            self.later_samples,
        )
        if self.later is None:
            self.displacement[:] = 0.0
        self.rounds, self.later_rounds = self.later_rounds, 0
        self.later, self.later_samples = None, 0
        self.drawn = 0
        self.data.end()
        self.grew = self.grew and self.samples > 0
        self.offer, self.offer_sent = NOTHING, False
        return dropped

    def _age(self) -> int:
        """Halve what waits, or drop it after too many certificates; return the dropped samples."""
        if self.weight == 0:
            return 0
        self.carried += 1
        before = self.weight
        if self.carried >= self.max_carry_rounds:
            self.residue[:] = 0.0
            self.weight = self.carried = 0
            self.data.nothing_waits()
            # No work is left that a certificate of an earlier offer could count.
            self.settled = self.next_seq - 1
            self.sent.clear()
            return before
        self._scale(0.5)
        self.weight //= 2
        return before - self.weight

    def _scale(self, factor: float) -> None:
        """Let what waits count less, and with it what a later listing takes out."""
        self.residue *= np.float32(factor)
        self.sent.scale(factor)

    def rest(self) -> None:
        """Let the work since the anchor wait, because the newer checkpoint was lost.

        The node trains from an earlier certificate's anchor.
        """
        self._end()

    def credit(self, start: int, weighted_error: Vector) -> None:
        """Keep, as a reducer, what the encoding of a slice's mean lost.

        Args:
            start: the slice's first element.
            weighted_error: included weight x (mean - decoded), shape (elements of the slice,).
        """
        self.residue[start : start + weighted_error.size] += weighted_error

    def drop(self, next_seq: int) -> int:
        """Drop everything pending and continue with at least `next_seq`.

        Returns:
            The dropped samples.
        """
        dropped = self.pending
        self.data.drop()
        self.residue[:] = 0.0
        self.displacement[:] = 0.0
        self.later = None
        self.weight = self.samples = self.later_samples = 0
        self.carried = self.rounds = self.later_rounds = 0
        self.grew = False
        self.offer, self.offer_sent = NOTHING, False
        self.sent.clear()
        self.next_seq = max(self.next_seq, next_seq)
        self.settled = self.next_seq - 1
        return dropped
