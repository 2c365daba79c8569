"""A member's ledger, kept by somebody else: what is in each of its offers, bit for bit, through kills and returns.

It runs `protocol.ledger` on the stretches that the member said it handed over, in the order in which it said so. A member that comes back must come
back with a ledger that it had a moment before; anything else is a doubt.
"""

from __future__ import annotations

from collections import deque

import msgspec

from protocol.codec import codec_named
from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.ledger import Ledger
from protocol.manifest import SignedManifest
from protocol.ports import LedgerRecord, Vector
from simulator.harness.content import vector_of
from simulator.harness.lines import Collected, Offered, Resumed

BOOKS_KEPT = 6  # of each member: its disk is a round behind at most, and a round writes two


class Stretch(msgspec.Struct, frozen=True):
    """What a member handed over at one time."""

    life: int
    stretch: int
    samples: int


class MadeOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer as its member must have made it."""

    member: int
    samples: int
    encoded: bytes
    contribution: Digest
    stretches: tuple[Stretch, ...]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A book as it stood when its member's ledger may have gone to disk."""

    record: LedgerRecord
    digest: str
    settled: int  # what the certificate it stood at says of the member's last seq
    pending: tuple[Stretch, ...]
    offers: dict[int, tuple[Stretch, ...]]


class Book:
    """One member's ledger, kept by somebody else: same deltas, same order, same arithmetic."""

    def __init__(self, member: int, signed: SignedManifest, elements: int) -> None:
        self.peer: PeerId = ""
        self.doubts: list[str] = []  # why this book may not be the member's own ledger any more
        self._run, self._manifest = signed.run, signed.open()
        self._member, self._seed, self._elements = member, self._manifest.seed, elements
        self._ledger = self._empty()
        self._last_seq = 0  # certified in the ancestry of the certificate it stands at
        self._pending: tuple[Stretch, ...] = ()
        self._offers: dict[int, tuple[Stretch, ...]] = {}  # by seq: what is in offers that may still be certified
        self._kept: deque[Kept] = deque(maxlen=BOOKS_KEPT)
        self._keep()

    def _empty(self) -> Ledger:
        limits = self._manifest.limits
        return Ledger(self._elements, codec_named(self._manifest.codec), limits.max_samples, limits.max_carry_rounds)

    def _keep(self) -> None:
        record = self._ledger.record(self._run, self._run)
        self._kept.append(
            Kept(
                record=msgspec.structs.replace(record, residue=self._ledger.residue.copy()),
                digest=_digest_of(self._ledger.residue),
                settled=self._last_seq,
                pending=self._pending,
                offers=dict(self._offers),
            )
        )

    def resumed(self, line: Resumed) -> None:
        """The member's ledger came back from its disk: one that it had a moment ago, whole, rounding and all. What came after it is lost."""
        told = (line.weight, line.offered_seq, line.residue)
        found = next((kept for kept in reversed(self._kept) if (kept.record.weight, kept.record.offered_seq, kept.digest) == told), None)
        if found is None:
            self.doubts.append(f"it came back with a ledger that it never had: {line.weight} samples, seq {line.offered_seq} on offer")
            return
        self._ledger = self._empty()
        self._ledger.restore(found.record)
        self._ledger.settled = self._last_seq = found.settled
        self._pending, self._offers = found.pending, dict(found.offers)

    def gave_out(self) -> None:
        """The offer's bytes go to the reducers."""
        self._ledger.give_out()

    def collected(self, line: Collected) -> None:
        self._ledger.add(vector_of(self._seed, self._member, line.life, line.stretch, self._elements), line.samples)
        self._pending = (*self._pending, Stretch(line.life, line.stretch, line.samples))

    def offered(self, line: Offered) -> MadeOffer | None:
        offer = self._ledger.make_offer()
        if (offer.seq, offer.weight, offer.digest.hex()) != (line.seq, line.samples, line.contribution):
            self.doubts.append(f"it offered {line.samples} samples as seq {line.seq}, its stretches make {offer.weight} as seq {offer.seq}")
        if offer.weight:
            self._offers[offer.seq] = self._pending
        self._keep()
        if not offer.weight:
            return None
        return MadeOffer(
            member=self._member, samples=offer.weight, encoded=offer.encoded, contribution=offer.digest, stretches=self._pending
        )

    def certified(self, listed_seq: int | None, *, last: bool) -> None:
        """`last` of those it moved along at once: only then is anything written."""
        before = self._ledger.weight
        self._ledger.settle(listed_seq)
        if not self._ledger.weight:
            self._pending = ()
        elif self._ledger.weight < before and listed_seq is not None:
            self._pending = tuple(stretch for stretch in self._pending if stretch not in self._offers.get(listed_seq, ()))
        self._last_seq = max(self._last_seq, listed_seq or 0)
        self._offers = {seq: stretches for seq, stretches in self._offers.items() if seq > self._last_seq}
        if last:
            self._keep()


def _digest_of(values: Vector) -> str:
    return digest(values.data.cast("B")).hex()
