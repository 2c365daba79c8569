"""A copy of a member's ledger that the harness keeps: each offer's content, bit for bit.

It runs `protocol.contribution.ledger` on the stretches that the member reported, in the order of
its reports, through kills and returns. A member that comes back must come back with a ledger that
it had a moment before. Anything else is a doubt.
"""

from __future__ import annotations

from collections import deque

import msgspec

from protocol.codec import codec_named
from protocol.contribution.ledger import Ledger
from protocol.contribution.ledger_disk import ledger_record, restore_ledger
from protocol.digest import Buffer, Digest, digest
from protocol.identity import PeerId
from protocol.ports.disk_records import LedgerRecord
from protocol.run.manifest import SignedManifest
from simulator.harness.content import vector_of
from simulator.harness.wire import Offered, Resumed, StretchCollected

# Snapshots kept of each member. Its disk is at most a round behind, and a round writes two.
SNAPSHOTS_KEPT = 6


class Stretch(msgspec.Struct, frozen=True):
    """What a member handed over at one time."""

    life: int
    stretch: int
    samples: int


class LocalTrajectory(msgspec.Struct, frozen=True, kw_only=True):
    """The stretches of one trajectory, and by how much its weight was cut since it ended."""

    stretches: tuple[Stretch, ...]
    factor: float = 1.0

    @property
    def samples(self) -> int:
        return sum(stretch.samples for stretch in self.stretches)


class ShadowOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer as its member must have made it."""

    member: int
    samples: int
    encoded: Buffer
    contribution: Digest
    walks: tuple[LocalTrajectory, ...]


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger at a time when its member may have written it to disk."""

    record: LedgerRecord
    digest: str
    # What the certificate of that time says of the member's last seq.
    settled: int
    waiting: tuple[LocalTrajectory, ...]
    present: tuple[Stretch, ...]
    later: tuple[Stretch, ...]
    offers: dict[int, tuple[LocalTrajectory, ...]]


class ShadowLedger:
    """A copy of one member's ledger: same deltas, same order, same arithmetic."""

    def __init__(self, member: int, signed: SignedManifest, elements: int) -> None:
        self.peer: PeerId = ""
        # Why this copy may differ from the member's own ledger.
        self.doubts: list[str] = []
        self._run, self._manifest = signed.run, signed.open()
        self._member, self._seed, self._elements = member, self._manifest.seed, elements
        # The certificate whose anchor the member holds.
        self.tip: Digest = signed.run
        # Whether the member is learning of certificates on the way to a later one.
        self.on_its_way = False
        self._ledger = self._empty()
        # The last seq certified in the ancestry of the member's certificate.
        self._last_seq = 0
        # The last seq that the member reported on offer.
        self._offered_seq = 0
        # Trajectories that ended and are not certified.
        self._waiting: tuple[LocalTrajectory, ...] = ()
        self._present: tuple[Stretch, ...] = ()
        # Stretches after the offer that was sent.
        self._later: tuple[Stretch, ...] = ()
        # By seq: the content of offers that may still be certified.
        self._offers: dict[int, tuple[LocalTrajectory, ...]] = {}
        self._kept: deque[LedgerSnapshot] = deque(maxlen=SNAPSHOTS_KEPT)
        self._keep()

    def _empty(self) -> Ledger:
        limits = self._manifest.limits
        return Ledger(
            self._elements,
            codec_named(self._manifest.codec),
            limits.max_samples,
            limits.max_carry_rounds,
        )

    def _keep(self) -> None:
        record = ledger_record(self._ledger, self._run, self._run)
        vectors = {
            "residue": record.residue,
            "displacement": record.displacement,
            "later": record.later,
        }
        self._kept.append(
            LedgerSnapshot(
                record=msgspec.structs.replace(
                    record, **{name: vector.copy() for name, vector in vectors.items()}
                ),
                digest=digest_of(self._ledger),
                settled=self._last_seq,
                waiting=self._waiting,
                present=self._present,
                later=self._later,
                offers=dict(self._offers),
            )
        )

    def resumed(self, line: Resumed) -> None:
        """Restore the ledger that the member came back with.

        It is one that the member recently had, and matches whole, with its rounding: what came
        after it is lost. Or it is empty: a member that sent an offer since its last full state
        drops its pending work. No seq that was offered is used again.
        """
        self.tip = bytes.fromhex(line.hash)
        if line.next_seq <= self._offered_seq:
            self.doubts.append(
                f"it came back to offer seq {line.next_seq} again, after seq {self._offered_seq}"
            )
        if not (line.weight or line.offered_seq) and line.vectors == digest_of(self._empty()):
            self._ledger = self._empty()
            self._ledger.drop(line.next_seq)
            self._last_seq = self._ledger.settled
            self._waiting = self._present = self._later = ()
            self._offers = {}
            return
        reported = (line.offered_seq, line.vectors)
        found = next(
            (
                kept
                for kept in reversed(self._kept)
                if (kept.record.offered_seq, kept.digest) == reported
            ),
            None,
        )
        if found is None:
            self.doubts.append(
                f"it came back with an unknown ledger: {line.weight} samples, seq "
                f"{line.offered_seq} on offer"
            )
            return
        self._ledger = self._empty()
        restore_ledger(self._ledger, found.record, offer_sent=line.given)
        self._ledger.settled = self._last_seq = found.settled
        self._ledger.next_seq = line.next_seq
        self._waiting, self._present, self._later, self._offers = (
            found.waiting,
            found.present,
            found.later,
            dict(found.offers),
        )
        if self._ledger.pending != line.weight:
            self.doubts.append(
                f"it came back with {line.weight} samples where its ledger holds "
                f"{self._ledger.pending}"
            )

    def gave_out(self) -> None:
        """The offer's bytes go to the reducers."""
        self._ledger.mark_sent()

    def collected(self, line: StretchCollected) -> None:
        stretch = Stretch(line.life, line.stretch, line.samples)
        if self._ledger.offer_sent:
            self._later = (*self._later, stretch)
        else:
            self._present = (*self._present, stretch)
        self._ledger.add(
            vector_of(self._seed, self._member, line.life, line.stretch, self._elements),
            line.samples,
        )

    def offered(self, line: Offered) -> ShadowOffer | None:
        offer = self._ledger.make_offer()
        if (offer.seq, offer.weight, offer.digest.hex()) != (
            line.seq,
            line.samples,
            line.contribution,
        ):
            self.doubts.append(
                f"it offered {line.samples} samples as seq {line.seq}, its stretches make "
                f"{offer.weight} as seq {offer.seq}"
            )
        if offer.weight and not self._ledger.offer_sent:
            self._offers[offer.seq] = (
                *self._waiting,
                *([LocalTrajectory(stretches=self._present)] if self._present else []),
            )
        self._offered_seq = max(self._offered_seq, line.seq)
        self._keep()
        if not offer.weight:
            return None
        return ShadowOffer(
            member=self._member,
            samples=offer.weight,
            encoded=offer.encoded,
            contribution=offer.digest,
            walks=self._offers.get(offer.seq, ()),
        )

    def certified(
        self, listed_seq: int | None, *, beside: bool, rounds: float, forgets: bool
    ) -> None:
        """Settle a certificate on the member's way.

        `beside` and `rounds` are those of `Ledger.settle`. `forgets` says that the member was no
        founder.
        """
        if forgets:
            self._ledger.drop(self._ledger.next_seq)
            self._waiting = self._present = self._later = ()
        counts = listed_seq is not None and listed_seq > self._ledger.settled
        ends = not beside or (counts and listed_seq == self._ledger.offer.seq)
        carried = self._ledger.carried
        self._ledger.settle(listed_seq, beside=beside, share=1 / rounds)
        if ends:
            ended = [LocalTrajectory(stretches=self._present)] if self._present else []
            self._waiting, self._present, self._later = (*self._waiting, *ended), self._later, ()
        if counts:
            counted = {
                stretch
                for walk in self._offers.get(listed_seq or 0, ())
                for stretch in walk.stretches
            }
            self._waiting = tuple(
                walk for walk in self._waiting if not counted & set(walk.stretches)
            )
        elif self._ledger.carried > carried:
            self._waiting = tuple(
                msgspec.structs.replace(walk, factor=walk.factor / 2) for walk in self._waiting
            )
        if not self._ledger.weight:
            self._waiting = ()
        if not self._ledger.pending:
            self._present = self._later = ()
        self._last_seq = max(self._last_seq, listed_seq or 0)
        self._offers = {seq: walks for seq, walks in self._offers.items() if seq > self._last_seq}

    def arrived(self, tip: Digest) -> None:
        """The member holds the anchor of `tip`. It writes only now."""
        self.tip = tip
        self._keep()


def digest_of(ledger: Ledger) -> str:
    """The digest of all the ledger's vectors, to the bit."""
    later = ledger.residue[:0] if ledger.later is None else ledger.later
    return digest(
        *(vector.data.cast("B") for vector in (ledger.residue, ledger.displacement, later))
    ).hex()
