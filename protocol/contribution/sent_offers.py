"""The offers of earlier parents that were sent and that a certificate may still list."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.codec import Codec
from protocol.contribution.offer import Offer, offer_from_disk
from protocol.ports.disk_records import SentOffer

SENT_KEPT = 3
"""The sent offers that a ledger keeps; each is as large as the model's encoding.

After as many certificates without one of them (the default of `max_carry_rounds`), none of their
work is left.
"""


class PendingOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer of an earlier parent that no certificate lists yet."""

    offer: Offer
    # The share of its work that S still holds.
    factor: float
    # Its samples in W.
    left: int


class SentOffers:
    """The pending offers of one ledger, by seq."""

    def __init__(self) -> None:
        self.pending: dict[int, PendingOffer] = {}

    def __contains__(self, seq: int) -> bool:
        return seq in self.pending

    def __getitem__(self, seq: int) -> PendingOffer:
        return self.pending[seq]

    def add(self, offer: Offer) -> None:
        """Keep an offer whose parent is over, and forget the oldest above `SENT_KEPT`."""
        self.pending[offer.seq] = PendingOffer(offer=offer, factor=1.0, left=offer.weight)
        while len(self.pending) > SENT_KEPT:
            del self.pending[min(self.pending)]

    def scale(self, factor: float) -> None:
        """Let a later listing take out less, because what waits counts less."""
        self.pending = {
            seq: PendingOffer(
                offer=pending.offer,
                factor=factor * pending.factor,
                left=int(factor * pending.left),
            )
            for seq, pending in self.pending.items()
        }

    def clear(self) -> None:
        self.pending.clear()

    def records(self) -> tuple[SentOffer, ...]:
        """The pending offers as they go to disk."""
        return tuple(
            SentOffer(
                seq=seq,
                weight=pending.offer.weight,
                digest=pending.offer.digest,
                encoded=pending.offer.encoded,
                factor=pending.factor,
                left=pending.left,
            )
            for seq, pending in sorted(self.pending.items())
        )

    def restore(self, records: Iterable[SentOffer], codec: Codec) -> None:
        """Restore the pending offers from disk."""
        for sent in records:
            offer = offer_from_disk(
                codec, seq=sent.seq, weight=sent.weight, encoded=sent.encoded, name=sent.digest
            )
            self.pending[sent.seq] = PendingOffer(offer=offer, factor=sent.factor, left=sent.left)
