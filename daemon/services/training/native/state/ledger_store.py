"""Keeps the ledger in memory and on disk.

The whole ledger is written with each full state, and its mark (`LedgerMark`) before each offer. A
ledger older than the chain is settled with the certificates that it missed. Where an offer that the
ledger on disk does not hold was sent, a certificate may count what that ledger still holds: the
node drops its pending work and reports the loss. A restart may lose the last steps, but never
counts them twice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.result_buffer import EncodingLosses
from daemon.swarm.lineage import Lineage
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.codec import codec_named
from protocol.contribution.ledger import Ledger
from protocol.contribution.ledger_disk import ledger_mark, ledger_record, restore_ledger
from protocol.contribution.offer import NOTHING, Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent, WorkDropped
from protocol.messages.offer import DataStretch
from protocol.ports.disk import Disk
from protocol.ports.disk_records import LedgerMark, LedgerRecord
from protocol.ports.offload import Offload
from protocol.run.manifest import Manifest

# A part of the reason for dropping work that no certificate counted in time.
PASSED_BY = "moved the anchor without this work"


class LedgerStore:
    """One node's ledger in one run, in memory and on disk."""

    def __init__(
        self,
        *,
        me: PeerId,
        manifest: Manifest,
        parameters: int,
        lineage: Lineage,
        disk: Disk,
        offload: Offload,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.ledger = Ledger(
            parameters,
            codec_named(manifest.codec),
            manifest.limits.max_samples,
            manifest.limits.max_carry_rounds,
        )
        # The certificate with which the ledger was settled last.
        self.tip = lineage.root.hash
        self._run, self._me, self._manifest = lineage.root.hash, me, manifest
        self._parameters, self._lineage = parameters, lineage
        self._disk, self._offload, self._record = disk, offload, record
        self._lock = trio.Lock()
        # The first seq that the ledger on disk does not know, and whether such an offer was sent.
        self._known_seq, self._sent_since = 1, False
        # Certificates on disk after this node's tip that count work which only they hold.
        self._ahead: list[OpenCertificate] = []
        # The memory of offers, until they are settled.
        self._buffers = Buffers()

    async def resume(self, tip: Tip, *, view_taken: Callable[[Digest], bool]) -> str:
        """Read the ledger from disk and settle it up to `tip`.

        `view_taken` returns whether this node used a view of the round after a certificate.

        Returns:
            The end of a sentence, about pending samples; "" if there are none.
        """
        record = await self._disk.load_ledger(self._run)
        mark = await self._disk.load_mark(self._run)
        self.tip = tip.hash
        # Certificates on disk whose results are missing count work, too.
        head = self._lineage.preferred_descendant(tip) or tip
        known_seq = record.next_seq if record is not None else 1
        newer = mark if mark is not None and mark.next_seq > known_seq else None
        # A node uses a view before it scatters: where it used none, no peer has its offer.
        lost = newer is not None and (newer.sent or view_taken(newer.tip))
        self._known_seq, self._sent_since = known_seq, lost
        if record is None or lost:
            self.ledger.drop(head.last_seq.get(self._me, 0) + 1)
        else:
            self._restore(record, tip, offer_sent=view_taken(record.tip))
        if newer is not None:
            self._follow(newer, tip, head)
        self._ahead = [
            certificate
            for certificate in self._lineage.path(tip, head)
            if (seq := certificate.listed.get(self._me)) is not None and not self.ledger.holds(seq)
        ]
        return f", {self.ledger.pending} samples pending" if self.ledger.pending else ""

    def _restore(self, record: LedgerRecord, tip: Tip, *, offer_sent: bool) -> None:
        """Restore the ledger on disk and settle it up to `tip`."""
        restore_ledger(self.ledger, record, offer_sent=offer_sent)
        settled_tip = self._lineage.tip(record.tip)
        if settled_tip is None:
            self._report_dropped(
                self.ledger.drop(tip.last_seq.get(self._me, 0) + 1),
                "the ledger on disk names an unknown certificate",
            )
            return
        self.ledger.settled = settled_tip.last_seq.get(self._me, 0)
        if settled_tip.hash != tip.hash:
            path = self._lineage.path(settled_tip, tip)
            self.settle(settled_tip, path)
            if not path:
                self.ledger.rest()

    def _follow(self, mark: LedgerMark, tip: Tip, head: Tip) -> None:
        """Continue behind the offers of a mark, and report what the ledger on disk lacks of them.

        The seq of an offer is never used again, and neither are the samples of its lane.
        """
        self.ledger.next_seq = max(self.ledger.next_seq, mark.next_seq)
        if not self.ledger.pending:
            self.ledger.settled = self.ledger.next_seq - 1
        if mark.tip == tip.hash:
            self.ledger.drawn = max(self.ledger.drawn, mark.drawn)
        certified = 0 < mark.offered_seq <= head.last_seq.get(self._me, 0)
        waiting = mark.pending - (mark.offered_weight if certified else 0)
        self._report_dropped(
            max(0, waiting - self.ledger.pending),
            "it was trained after the last full state on disk; only a certificate that is on its"
            " way can still count it",
        )

    async def make_offer(
        self,
        delta: Vector,
        samples: int,
        drawn: int | None = None,
        stretch: DataStretch | None = None,
    ) -> Offer:
        """Add work, encode the next offer and make it durable.

        The arguments are those of `Ledger.add`. An offer whose sum is not finite cannot be
        encoded. It is dropped and reported, and the offer returned is empty.

        Raises:
            DiskFull: The offer is not durable, and must not be sent.
        """
        self._buffers.next_round()
        memory = self._buffers.acquire(self.ledger.codec.size(self._parameters))

        def work() -> tuple[Offer, str]:
            self.ledger.add(delta, samples, drawn=drawn, stretch=stretch)
            try:
                return self.ledger.make_offer(memory), ""
            except ValueError as unfit:
                return NOTHING, str(unfit)

        async with self._lock:
            self._note_sent()
            offer, unfit = await self._offload(work)
            if unfit:
                self._report_dropped(self.ledger.drop(self.ledger.next_seq), unfit)
            mark = ledger_mark(self.ledger, self.tip, sent=self._sent_since)
            await self._disk.save_mark(self._run, mark)
            return offer

    async def add(
        self,
        delta: Vector,
        samples: int,
        drawn: int | None = None,
        stretch: DataStretch | None = None,
    ) -> None:
        """Add work for the next offer. The arguments are those of `Ledger.add`."""
        async with self._lock:
            await self._offload(
                lambda: self.ledger.add(delta, samples, drawn=drawn, stretch=stretch)
            )

    async def save(self, tip: Tip) -> None:
        """Write the ledger under `tip`.

        Where the anchor has moved meanwhile, the ledger counts a certificate that is not on disk
        yet. The older record then stays: it matches the disk, and another write follows.
        """
        async with self._lock:
            if self.tip == tip.hash:
                record = ledger_record(self.ledger, self._run, tip.hash)
                await self._disk.save_ledger(record)
                self._known_seq, self._sent_since = record.next_seq, False

    def size_bytes(self) -> int:
        """About the bytes of the ledger on disk."""
        record = ledger_record(self.ledger, self._run, self.tip)
        vectors = (record.residue, record.displacement, record.later)
        encoded = len(record.offered) + sum(len(sent.encoded) for sent in record.sent)
        return sum(int(vector.nbytes) for vector in vectors) + encoded

    def _note_sent(self) -> None:
        """Note whether an offer that the ledger on disk lacks was sent."""
        offer = self.ledger.offer
        self._sent_since |= self.ledger.offer_sent and offer.seq >= self._known_seq

    async def move_to(
        self, before: Tip, tip: Tip, path: list[OpenCertificate], losses: EncodingLosses
    ) -> None:
        """Settle every certificate from `before` to `tip`, and credit what encoding lost.

        `losses` belong to the last certificate of `path`.
        """

        def work() -> None:
            self._note_sent()
            self.settle(before, path)
            for start, error in losses:
                self.ledger.credit(start, error / np.float32(path[-1].rounds))
            self._leave_behind(tip)
            self.tip = tip.hash

        async with self._lock:
            await self._offload(work)

    def _leave_behind(self, tip: Tip) -> None:
        """Report the work of certificates on disk that `tip` does not lead to any more.

        They were on disk at the start, and nobody served their states. What the ledger on disk
        held of their work is no loss: it waits in the ledger.
        """
        ahead = [(each, self._lineage.tip(each.hash)) for each in self._ahead]
        self._ahead = [
            each
            for each, made in ahead
            if made is not None and made.hash != tip.hash and self._lineage.descends(made, tip)
        ]
        left = [
            each
            for each, made in ahead
            if each not in self._ahead and (made is None or not self._lineage.descends(tip, made))
        ]
        self.report_left(left, "no member served its state")

    async def recover(self, tip: Tip) -> None:
        """Go on at the owner's recovery: what was trained on the branch of before is dropped."""

        def work() -> None:
            self._note_sent()
            next_seq = max(self.ledger.next_seq, tip.last_seq.get(self._me, 0) + 1)
            self._report_dropped(
                self.ledger.drop(next_seq),
                f"the run's owner took the run back to certificate {tip.number}",
            )
            self._leave_behind(tip)
            self.tip = tip.hash

        async with self._lock:
            await self._offload(work)

    def settle(self, before: Tip, path: list[OpenCertificate]) -> None:
        """Settle every certificate of `path`, which begins after `before`."""
        if self.joins(before, path):
            self._report_dropped(
                self.ledger.drop(self.ledger.next_seq),
                "it was trained from the run's initial parameters, and the run has advanced since",
            )
        if path and any(self._lineage.tip(parent) is None for parent in path[0].outcome.parents):
            self._report_dropped(
                self.ledger.drop(self.ledger.next_seq),
                "a certificate that is no longer kept may count it",
            )
        for certificate in path:
            last = certificate is path[-1]
            step = self._lineage.entry(certificate.hash)
            beside = not last and (step is None or not self._lineage.descends(step.tip, before))
            listed = certificate.listed.get(self._me)
            known = listed is None or self.ledger.knows(listed)
            # A restart may have settled the listed offer already: the certificate then only ages
            # newer work.
            counted = listed is not None and listed > self.ledger.settled
            dropped = self.ledger.settle(listed, beside=beside, share=1 / certificate.rounds)
            self._report_dropped(dropped, self._reason(certificate, counted, known))

    def report_left(self, lost: list[OpenCertificate], why: str) -> None:
        """Report this node's work that only certificates of a branch held which it leaves."""
        samples = sum(
            one.plan.offers[one.plan.index[self._me]].samples
            for one in lost
            if self._me in one.listed
        )
        self._report_dropped(samples, f"only the branch counted it that this node left: {why}")

    def joins(self, before: Tip, path: list[OpenCertificate]) -> bool:
        """Return whether `path` leads a node to its first anchor of a run that others began.

        The work of such a node fits no later anchor. Counted in a certificate, it once set a run
        back by five rounds.
        """
        return (
            bool(path)
            and before.hash == self._lineage.root.hash
            and not (path[0].outcome.number == 1 and self._me in path[0].plan.index)
        )

    def _reason(self, certificate: OpenCertificate, counted: bool, known: bool) -> str:
        """Return why settling a certificate dropped samples."""
        number, limits = certificate.outcome.number, self._manifest.limits
        if not known:
            return (
                f"certificate {number} counts later work of this node than its ledger on disk has"
            )
        if counted:
            return f"certificate {number} counts at most {limits.max_samples:,} samples of a member"
        return (
            f"certificate {number} {PASSED_BY}; each certificate halves waiting work, and it is"
            f" dropped after {limits.max_carry_rounds} certificates"
        )

    def _report_dropped(self, samples: int, why: str) -> None:
        if samples:
            self._record(WorkDropped(samples=samples, reason=why))
