"""The contributor's ledger: why nothing is lost and nothing counted twice.

`residue` (S in ROUND) is the float32 sum of weight x pseudo-gradient not yet certified, quantization error included; `weight` (W) its samples.
An offer is q = encode(S / W) under the next per-node `seq`. Only a certificate that lists (peer, seq) changes them: S -= w decode(q), W -= w.
What is not listed stays, the next steps are added, and it is offered again under the next seq. A certificate may be long on its way (a
partition, a restart), and list an offer after which others were made: the bytes of what was given out are kept for that, on disk too. Where
the manifest caps the samples of one offer, w is the cap and the rest waits for the following rounds.
"""

from __future__ import annotations

import msgspec
import numpy as np

from protocol.codec import Codec, chunk_bytes, codec_named
from protocol.digest import EMPTY_ROOT, Buffer, Digest, Levels, leaves_of, levels_of, root_of
from protocol.errors import InvariantBroken, PeerFault
from protocol.ports import LedgerRecord, SentOffer, Vector

_AS_THEY_ARE = codec_named("float32")


def as_bytes(vector: Vector) -> memoryview:
    """A vector as the codec float32 has it, without a copy on most machines."""
    return vector.astype("<f4", copy=False).data.cast("B")


def is_finite(vector: Vector) -> bool:
    """Whether it may enter a ledger."""
    try:
        _AS_THEY_ARE.check(as_bytes(vector), vector.size)
    except PeerFault:
        return False
    return True


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What one node offers to one round. `seq` 0 and no bytes when there is nothing to offer."""

    seq: int = 0
    weight: int = 0
    encoded: Buffer = b""
    tree: Levels = ()  # over the encoding's chunks; its root is the digest
    digest: Digest = EMPTY_ROOT


NOTHING = Offer()
SENT_KEPT = 3
"""Offers given out and not settled: each is as large as the model's encoding. A second one takes a partition in mid-round, a third one a restart in
it: nobody knows then whether the last offer was given out, and it is kept as if it had been."""


class Ledger:
    """One node's ledger in one run. Mutable: it holds the vector S. Whoever changes it makes it durable before telling anybody."""

    def __init__(self, parameters: int, codec: Codec, max_samples: int, max_carry_rounds: int) -> None:
        self.codec = codec
        self.max_samples = max_samples
        self.max_carry_rounds = max_carry_rounds
        self.residue: Vector = np.zeros(parameters, np.float32)
        self.weight = 0
        self.next_seq = 1
        self.carried = 0
        self.offer = NOTHING
        self.settled = 0  # the last seq that was settled: with it, whatever was offered before it
        self._sent: dict[int, Offer] = {}  # given out and not settled: a certificate that is on its way may list any of them

    def add(self, delta: Vector, samples: int) -> None:
        """A stretch of training was handed over: `delta` is parameters before minus after, finite, shape (parameters,)."""
        if samples:
            _AS_THEY_ARE.add(as_bytes(delta), samples, self.residue)
            self.weight += samples

    def make_offer(self, memory: memoryview | None = None) -> Offer:
        """Encode what is pending under the next seq, into `memory` of an encoding's size if there is any. The earlier offer, certified or not, is not
        offered again."""
        if self.weight == 0:
            self.offer = NOTHING
            return NOTHING
        encoded: Buffer
        if memory is None:
            encoded = self.codec.encode(self.residue, over=self.weight)
        else:
            encoded = memory
            self.codec.encode_into(self.residue, self.weight, memory)
        tree = levels_of(leaves_of(encoded, chunk_bytes(self.codec)))
        weight = min(self.weight, self.max_samples)
        self.offer = Offer(seq=self.next_seq, weight=weight, encoded=encoded, tree=tree, digest=root_of(tree))
        self.next_seq += 1
        return self.offer

    def give_out(self) -> None:
        """The offer's bytes go to others: from here on a certificate may list it, however many offers are made after it."""
        if self.offer.seq:
            self._sent[self.offer.seq] = self.offer
            if len(self._sent) > SENT_KEPT:
                del self._sent[min(self._sent)]

    def settle(self, listed_seq: int | None) -> int:
        """A certificate joined our ancestry; `listed_seq` is what it lists for us, None when it does not.

        Returns the samples that had to be dropped: certified work that this ledger no longer knows (a restart from an older ledger), or
        work carried for too long. Dropping loses a node's last steps; keeping them could count them twice.
        """
        if listed_seq is None or listed_seq <= self.settled:
            return self._age()  # certified on another branch too: what was in that offer is not here any more
        offer = self.offer if listed_seq == self.offer.seq else self._sent.get(listed_seq, NOTHING)
        if offer.weight:
            self.codec.add(offer.encoded, -offer.weight, self.residue)
            self.weight -= offer.weight
            self.carried = 0
            self.settled = listed_seq
            # Offers made after it hold its work too. Should one of them be certified on another branch, only dropping is safe.
            self.offer = NOTHING
            self._sent.clear()
            if self.weight < 0:
                raise InvariantBroken(f"the ledger was certified for {-self.weight} samples more than it held")
            return 0
        return self.drop(listed_seq + 1)

    def credit(self, start: int, weighted_error: Vector) -> None:
        """A reducer keeps what encoding its slice's mean lost: `weighted_error` is W_included x (mean - decoded) from element `start` on."""
        self.residue[start : start + weighted_error.size] += weighted_error

    def drop(self, next_seq: int) -> int:
        """Forget everything pending and go on with at least `next_seq`. Returns the samples forgotten."""
        dropped = self.weight
        self.residue[:] = 0.0
        self.weight = 0
        self.carried = 0
        self.offer = NOTHING
        self._sent.clear()
        self.next_seq = max(self.next_seq, next_seq)
        self.settled = self.next_seq - 1
        return dropped

    def _age(self) -> int:
        if self.weight == 0:
            return 0
        self.carried += 1
        return self.drop(self.next_seq) if self.carried > self.max_carry_rounds else 0

    def record(self, run: Digest, tip: Digest) -> LedgerRecord:
        """The ledger as it goes to disk; shares the vector, so write it before changing it."""
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
            sent=tuple(
                SentOffer(seq=seq, weight=offer.weight, digest=offer.digest, encoded=offer.encoded)
                for seq, offer in sorted(self._sent.items())
                if seq != self.offer.seq
            ),
        )

    def restore(self, record: LedgerRecord) -> None:
        """Take what was on disk. Raises `InvariantBroken` when it is of another model."""
        if record.residue.shape != self.residue.shape:
            raise InvariantBroken(f"the ledger on disk has {record.residue.size} parameters, the run's model {self.residue.size}")
        self.residue[:] = record.residue
        self.weight, self.next_seq, self.carried = record.weight, record.next_seq, record.carried
        for sent in record.sent:
            self._sent[sent.seq] = self._again(sent.seq, sent.weight, sent.encoded, sent.digest)
        if record.offered_seq:
            self.offer = self._again(record.offered_seq, record.offered_weight, record.offered, record.offered_digest)
            self.give_out()

    def _again(self, seq: int, weight: int, encoded: Buffer, name: Digest) -> Offer:
        return Offer(seq=seq, weight=weight, encoded=encoded, tree=levels_of(leaves_of(encoded, chunk_bytes(self.codec))), digest=name)
