"""The contributor's ledger: why nothing is lost and nothing counted twice.

A trajectory is training from one anchor without taking another. Its displacement T is the anchor
minus the parameters, w its samples. Steps along a trajectory add up; trajectories are averaged,
weighted by samples. `residue` (S) and `weight` (W) hold what earlier trajectories left: the sum of
weight x displacement that is not certified, what encoding lost included, and its samples.

An offer is q = encode((S + wT) / (W + w)) with weight W + w, under the next per-node `seq`. Until
its bytes are given out, later steps replace it by an offer of the whole displacement: a node that
was alone for long brings all of it, and the anchor moves to its parameters. Once given out it is
the only offer of its parent: every later view repeats it, and steps after it are kept apart
(`later`). They begin the trajectory from the next anchor.

A certificate that lists the offer: S += wT - (W + w) decode(q), W = 0. One that does not: S += wT,
W += w; then S, W and the factor f of every offer that was given out are halved, since work on an
older anchor fits less well. A certificate may be long on its way (a partition, a restart). Where
one lists an earlier offer, S -= f (W + w) decode(q) and W -= f (W + w). After `max_carry_rounds`
certificates in a row that list nothing of this node, S and W are dropped. Every sample that is
dropped is returned to the caller, who reports it.

The run's cap (`max_samples`) bounds the weight of an offer, never its displacement. What is above
the cap is dropped, S with it in proportion: the offer already has the whole displacement in it, and
to offer the surplus again would move the anchor by the same displacement a second time.
"""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec import Codec, chunk_bytes
from protocol.contribution.offer import AS_THEY_ARE, NOTHING, Kept, Offer, as_bytes, is_finite
from protocol.digest import Buffer, Digest, leaves_of, levels_of, root_of
from protocol.errors import InvariantBroken
from protocol.ports.disk_records import LedgerRecord, SentOffer

__all__ = ["NOTHING", "SENT_KEPT", "Kept", "Ledger", "Offer", "as_bytes", "is_finite"]

SENT_KEPT = 3
"""Offers of earlier parents that are kept: each is as large as the model's encoding. After as many certificates without one of ours (the default of
`max_carry_rounds`) none of their work is left."""


class Ledger:
    """One node's ledger in one run.

    Mutable: it holds vectors of shape (parameters,). Whoever changes it makes it durable before
    telling anybody.
    """

    def __init__(
        self, parameters: int, codec: Codec, max_samples: int, max_carry_rounds: int
    ) -> None:
        self.codec = codec
        self.max_samples = max_samples
        self.max_carry_rounds = max_carry_rounds
        self.residue: Vector = np.zeros(parameters, np.float32)
        self.weight = 0
        # T, up to the offer once that was given out.
        self.displacement: Vector = np.zeros(parameters, np.float32)
        self.samples = 0  # w
        # What was trained after an offer that was given out.
        self.later: Vector | None = None
        self.later_samples = 0
        self.later_rounds = 0
        # Samples of this round's lane that were used, whatever became of them.
        self.drawn = 0
        # Of training in the trajectory: how often something new was offered.
        self.rounds = 0
        self.next_seq = 1
        self.carried = 0
        self.offer = NOTHING
        # Whether the offer's bytes went to others: then it is the only one of this parent.
        self.given = False
        # The last seq that was settled: with it, whatever was offered before it.
        self.settled = 0
        # Whether something was added since the last offer.
        self._grew = False
        # A certificate that is on its way may list any of them.
        self._kept: dict[int, Kept] = {}

    @property
    def pending(self) -> int:
        """Samples that no certificate lists yet."""
        return self.weight + self.samples + self.later_samples

    @property
    def local(self) -> Vector | None:
        """The anchor minus the parameters that training goes on from; None where they are the
        anchor.
        """
        if self.later is None:
            return self.displacement if self.samples else None
        return self.displacement + self.later

    # -------------------------------------------------------------------------------------------- training and offers

    def add(self, delta: Vector, samples: int) -> None:
        """A stretch of training was handed over: `delta` is parameters before minus after, finite,
        shape (parameters,).
        """
        if not samples:
            return
        self.drawn += samples
        if self.given:
            if self.later is None:
                self.later = np.zeros_like(self.displacement)
            AS_THEY_ARE.add(as_bytes(delta), 1, self.later)
            self.later_samples += samples
        else:
            self.offer = NOTHING
            AS_THEY_ARE.add(as_bytes(delta), 1, self.displacement)
            self.samples += samples
        self._grew = True

    def make_offer(self, memory: memoryview | None = None) -> Offer:
        """The offer of this parent: the one that was given out, or all that is pending, encoded
        under the next seq, into `memory` of an encoding's size if there is any.

        Raises `ValueError` for what cannot be encoded.
        """
        grew, self._grew = self._grew, False
        if self.given:
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
            self.codec.encode_into(self._learned(), total, memory)
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

    def _learned(self) -> Vector:
        """S + wT."""
        if not self.samples:
            return self.residue
        learned = self.residue.copy()
        AS_THEY_ARE.add(as_bytes(self.displacement), self.samples, learned)
        return learned

    def give_out(self) -> None:
        """The offer's bytes go to others: from here on a certificate may list it, and no other
        offer is made for this parent.
        """
        self.given = bool(self.offer.seq)

    # -------------------------------------------------------------------------------------------- certificates

    def knows(self, seq: int) -> bool:
        """Whether this ledger made offer `seq`, or was settled with it or a later one."""
        return seq <= self.settled or seq == self.offer.seq or seq in self._kept

    def settle(self, listed_seq: int | None, *, beside: bool = False, share: float = 1.0) -> int:
        """A certificate joined our ancestry; `listed_seq` is what it lists for us, None when it
        does not.

        `beside` says that it is of a branch which a later certificate merges with ours: it ends no
        trajectory and ages nothing. `share` scales what the certificate's encoding lost
        (`protocol/contribution/round_share.py`).

        Returns the samples that were dropped: half of what waits, all of it after
        `max_carry_rounds`, what is above the cap, or certified work that this ledger no longer
        knows (a restart from an older ledger). The last loses a node's last steps; keeping them
        could count them twice.
        """
        if listed_seq is None or listed_seq <= self.settled:
            return 0 if beside else self._end() + self._age()
        if listed_seq == self.offer.seq:
            counted = Kept(offer=self.offer, factor=1.0, left=self.offer.weight)
            dropped = self._end()
        elif listed_seq in self._kept:
            dropped = 0 if beside else self._end()
            counted = self._kept[listed_seq]
        else:
            self.drawn = 0
            return self.drop(listed_seq + 1)
        self.codec.add(counted.offer.encoded, -counted.factor * counted.offer.weight, self.residue)
        self.weight -= counted.left
        if self.weight < 0:
            raise InvariantBroken(
                f"the ledger was certified for {-self.weight} samples more than it held"
            )
        # S is what encoding lost, and nothing else.
        if self.weight == 0:
            self.residue *= np.float32(share)
        self.carried = 0
        self.settled = listed_seq
        # Offers made after it hold its work too. Should one of them be certified on another branch,
        # only dropping is safe.
        self._kept.clear()
        self.offer, self.given = NOTHING, False
        return dropped

    def _end(self) -> int:
        """The anchor moves: what the trajectory came to waits in S, and steps after its offer begin
        the next one.

        Returns the samples above the cap.
        """
        offer = self.offer
        learned = self._learned()
        if learned is not self.residue:
            self.residue[:] = learned
        self.weight += self.samples
        dropped = max(0, self.weight - self.max_samples)
        if dropped:
            self._scale(self.max_samples / self.weight)
            self.weight = self.max_samples
        if self.given:
            self._kept[offer.seq] = Kept(offer=offer, factor=1.0, left=offer.weight)
            while len(self._kept) > SENT_KEPT:
                del self._kept[min(self._kept)]
        self.displacement, self.samples = (
            self.displacement if self.later is None else self.later,
            self.later_samples,
        )
        if self.later is None:
            self.displacement[:] = 0.0
        self.rounds, self.later_rounds = self.later_rounds, 0
        self.later, self.later_samples = None, 0
        self.drawn = 0
        self._grew = self._grew and self.samples > 0
        self.offer, self.given = NOTHING, False
        return dropped

    def _age(self) -> int:
        if self.weight == 0:
            return 0
        self.carried += 1
        before = self.weight
        if self.carried >= self.max_carry_rounds:
            self.residue[:] = 0.0
            self.weight = self.carried = 0
            # Of no offer so far is anything left that a certificate could count.
            self.settled = self.next_seq - 1
            self._kept.clear()
            return before
        self._scale(0.5)
        self.weight //= 2
        return before - self.weight

    def _scale(self, factor: float) -> None:
        """What waits counts less, and with it what a later listing takes out."""
        self.residue *= np.float32(factor)
        self._kept = {
            seq: Kept(offer=kept.offer, factor=factor * kept.factor, left=int(factor * kept.left))
            for seq, kept in self._kept.items()
        }

    def rest(self) -> None:
        """The anchor is that of an earlier certificate (its newer checkpoint was lost): what was
        trained since waits, since it begins elsewhere.
        """
        self._end()

    def credit(self, start: int, weighted_error: Vector) -> None:
        """A reducer keeps what encoding its slice's mean lost: `weighted_error` is W_included x
        (mean - decoded) from element `start` on.
        """
        self.residue[start : start + weighted_error.size] += weighted_error

    def drop(self, next_seq: int) -> int:
        """Forget everything pending and go on with at least `next_seq`.

        Returns the samples forgotten.
        """
        dropped = self.pending
        self.residue[:] = 0.0
        self.displacement[:] = 0.0
        self.later = None
        self.weight = self.samples = self.later_samples = 0
        self.carried = self.rounds = self.later_rounds = 0
        self._grew = False
        self.offer, self.given = NOTHING, False
        self._kept.clear()
        self.next_seq = max(self.next_seq, next_seq)
        self.settled = self.next_seq - 1
        return dropped

    # -------------------------------------------------------------------------------------------- on disk

    def record(self, run: Digest, tip: Digest) -> LedgerRecord:
        """The ledger as it goes to disk; shares the vectors, so write it before changing it."""
        nothing = self.residue[:0]
        return LedgerRecord(
            run=run,
            tip=tip,
            next_seq=self.next_seq,
            weight=self.weight,
            carried=self.carried,
            offered_seq=self.offer.seq,
            offered_weight=self.offer.weight,
            offered_digest=self.offer.digest,
            offered=self.offer.encoded,
            residue=self.residue,
            samples=self.samples,
            displacement=self.displacement if self.samples else nothing,
            later_samples=self.later_samples,
            later=nothing if self.later is None else self.later,
            drawn=self.drawn,
            rounds=self.rounds,
            later_rounds=self.later_rounds,
            sent=tuple(
                SentOffer(
                    seq=seq,
                    weight=kept.offer.weight,
                    digest=kept.offer.digest,
                    encoded=kept.offer.encoded,
                    factor=kept.factor,
                    left=kept.left,
                )
                for seq, kept in sorted(self._kept.items())
            ),
        )

    def restore(self, record: LedgerRecord, *, given: bool = True) -> None:
        """Take what was on disk.

        `given` is whether the offer there may have been given out. Raises `InvariantBroken` when it
        is of another model.
        """
        if record.residue.shape != self.residue.shape:
            raise InvariantBroken(
                f"the ledger on disk has {record.residue.size} parameters, the run's model {self.residue.size}"
            )
        self.residue[:] = record.residue
        self.weight, self.next_seq, self.carried = record.weight, record.next_seq, record.carried
        self.drawn, self.rounds, self.later_rounds = (
            record.drawn,
            record.rounds,
            record.later_rounds,
        )
        self._grew = bool(record.samples) and not record.offered_seq
        if record.samples:
            self.displacement[:] = record.displacement
            self.samples = record.samples
        if record.later_samples:
            self.later, self.later_samples = record.later.copy(), record.later_samples
        for sent in record.sent:
            offer = self._again(sent.seq, sent.weight, sent.encoded, sent.digest)
            self._kept[sent.seq] = Kept(offer=offer, factor=sent.factor, left=sent.left)
        if record.offered_seq:
            self.offer = self._again(
                record.offered_seq, record.offered_weight, record.offered, record.offered_digest
            )
            self.given = given or bool(record.later_samples)

    def _again(self, seq: int, weight: int, encoded: Buffer, name: Digest) -> Offer:
        return Offer(
            seq=seq,
            weight=weight,
            encoded=encoded,
            tree=levels_of(leaves_of(encoded, chunk_bytes(self.codec))),
            digest=name,
        )
