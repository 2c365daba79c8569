"""What a node keeps: anchor, ledger and certificates, in memory and on disk, and how they come back
after a restart.

The order on disk makes a crash at any instant harmless: the ledger with an offer is durable before
the offer is made; certificates are appended before the checkpoint that stands on them; a ledger
older than the chain is settled against what it missed, and where it no longer knows what was
certified, it drops its pending work and says so (a restart may lose the last steps, never count
them twice). A restart trains on from the local parameters: the anchor minus the displacement that
the ledger holds. That a view is taken is durable before anything is said in it: whoever comes back
into the middle of a round goes on in the next view, and never votes twice in one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import trio

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.state.anchor import Anchor
from daemon.swarm.chain_sync import unpack_record
from daemon.swarm.lineage import Lineage
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import (
    OpenCertificate,
    Tip,
    decode_tip,
    encode_tip,
    hash_of,
    parents_of,
)
from protocol.codec import codec_named
from protocol.contribution.ledger import NOTHING, Ledger, Offer, is_finite
from protocol.digest import Digest
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId
from protocol.journal import CheckpointWritten, JournalEvent, Warned, WorkDropped
from protocol.ports.disk import VIEW_RECORDS_KEPT, Disk, DiskFull
from protocol.ports.disk_records import Checkpoint, ViewRecord
from protocol.ports.offload import Offload
from protocol.ports.trainer import TaskInfo
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Manifest

# Said of work that no certificate counted in time.
PASSED_BY = "moved the anchor without this work"
CERTIFICATES_READ = 512  # read back from disk at once


class StateStore:
    """One node's durable state in one run."""

    def __init__(
        self,
        *,
        run: Digest,
        me: PeerId,
        manifest: Manifest,
        info: TaskInfo,
        lineage: Lineage,
        disk: Disk,
        offload: Offload,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.anchor = Anchor(info.parameters, manifest)
        self.ledger = Ledger(
            info.parameters,
            codec_named(manifest.codec),
            manifest.limits.max_samples,
            manifest.limits.max_carry_rounds,
        )
        self.lineage = lineage
        self.tip: Tip = lineage.root
        self.inner: Vector = np.zeros(0, np.float32)
        self._run, self._me, self._manifest, self._info = run, me, manifest, info
        self._disk, self._offload, self._record = disk, offload, record
        self._ledger_lock = trio.Lock()
        # The certificate that the ledger was settled with last. It is behind `tip` for a moment.
        self._ledger_tip = lineage.root.hash
        self._offers = Buffers()  # what is offered, until it is settled
        self._view_records: dict[Digest, int] = {}

    @property
    def me(self) -> PeerId:
        """Whose state this is."""
        return self._me

    @property
    def view_records(self) -> Mapping[Digest, int]:
        """By parent, the first view in which this node has done nothing yet that may be done once
        only.

        The latest is the last.
        """
        return self._view_records

    async def persist_view(self, parent: Digest, view: int) -> None:
        """Make durable that `view` is taken.

        Raises `DiskFull`: then it is not, and nothing may be said in it.
        """
        if self._view_records.get(parent, 0) > view:
            return
        kept = [(known, free) for known, free in self._view_records.items() if known != parent][
            1 - VIEW_RECORDS_KEPT :
        ]
        records = {**dict(kept), parent: view + 1}
        await self._disk.save_view_records(
            self._run, [ViewRecord(parent=known, view=free) for known, free in records.items()]
        )
        self._view_records = records

    async def resume(self) -> str:
        """Take up from disk, or begin at genesis. Returns a sentence about which.

        Raises:
            UserError: "TASK_CHANGED" where the disk holds another model than the task makes;
                "DAMAGED" where what this node certified cannot be read back. It never begins anew over that.
        """
        checkpoint = await self._disk.load_checkpoint(self._run)
        self._view_records = {
            stand.parent: stand.view for stand in await self._disk.load_view_records(self._run)
        }
        last = await self._read_chain(checkpoint)
        tip = self.lineage.tip(checkpoint.tip) if checkpoint else None
        if checkpoint is not None and tip is None:
            raise self._disk.damage(
                self._run,
                f"Checkpoint {checkpoint.number} stands on a certificate that is not on disk; the certificates there end with number {last}.",
            )
        if tip is None and last:
            self._warn(
                f"the state of certificate {last} is not on disk; the members of the run are asked for it"
            )
        if checkpoint is None or tip is None:
            self.anchor.spare_value[:] = await self._offload(
                lambda: initial_parameters(self._info.specs, self._manifest.seed)
            )
            self.anchor.spare_momentum[:] = 0.0
            said = "beginning at genesis"
        else:
            if checkpoint.anchor.size != self._info.parameters:
                raise UserError(
                    "TASK_CHANGED",
                    "The task makes another model than the one that this home holds.",
                    why=f"the checkpoint has {checkpoint.anchor.size:,} parameters, the task {self._info.parameters:,}",
                    fix="use the version of the task that the model was trained with, or begin another run: another name or seed in its run file",
                    exit_code=2,
                )
            self.anchor.spare_value[:] = checkpoint.anchor
            self.anchor.spare_momentum[:] = checkpoint.momentum
            self.inner, self.tip = checkpoint.inner, tip
            said = f"resuming from certificate {tip.number}"
        digest = await self.anchor.digest_spare(self._offload)
        if self.tip.state and digest != self.tip.state:
            raise self._disk.damage(
                self._run,
                f"Checkpoint {self.tip.number} does not have the state that its certificate names.",
            )
        self.anchor.adopt(self.tip.hash)
        said += await self._resume_ledger()
        self._ledger_tip = self.tip.hash
        return said

    async def _read_chain(self, checkpoint: Checkpoint | None) -> int:
        """Every certificate on disk into the lineage.

        Returns the number of the last one, 0 for none.

        A lineage keeps the last few hundred certificates of what others give. So the chain of a
        node that joined late, or was away for long, has a gap before them. It is then read from the
        checkpoint's tip on. What a power cut left of such a chain, with no checkpoint on it yet, is
        not read: the members give it again. The lineage stands on the checkpoint's tip as soon as
        that is read: a disk that took certificates alone may hold more behind it than a lineage
        keeps.
        """
        first, rest = 1, True
        stood = decode_tip(checkpoint.stood) if checkpoint else None
        while rest and (
            batch := await self._disk.certificates(self._run, first, CERTIFICATES_READ)
        ):
            rest = len(batch) == CERTIFICATES_READ
            for record in batch:
                try:
                    raws = unpack_record(record)
                    gap = any(
                        self.lineage.tip(parent) is None
                        for raw in raws[:1]
                        for parent in parents_of(raw)
                    )
                    if gap and stood is not None and self.lineage.tip(stood.hash) is None:
                        self.lineage.stand(stood)
                        first, rest = stood.number + 1, True
                        break
                    if gap and (checkpoint is None or self.lineage.tip(checkpoint.tip) is not None):
                        return first - 1
                    for raw in raws:
                        self.lineage.add(raw, trusted=True)
                        made = self.lineage.step(hash_of(self._run, raw))
                        if made is None:
                            raise PeerFault(
                                "bad_certificate", "its parent is not among those before it"
                            )
                        if checkpoint is not None and made.tip.hash == checkpoint.tip:
                            self.lineage.stand(made.tip)
                        first = max(first, made.tip.number + 1)
                except PeerFault as fault:
                    raise self._disk.damage(
                        self._run, f"Certificate {first} on disk does not read back: {fault}."
                    ) from None
        return first - 1

    async def _hashes_on_disk(self, number: int) -> set[Digest]:
        """What the certificates of one step of our lineage are named by."""
        records = await self._disk.certificates(self._run, number, 1)
        return {hash_of(self._run, raw) for record in records for raw in unpack_record(record)}

    async def _fates(self, tip: Tip) -> tuple[set[Digest], set[Digest]]:
        """Of the other checkpoints on disk: the tips that are in the ancestry of `tip`, and those
        of branches that were left.

        A tip that is in neither is not known here, and its checkpoint stays.
        """
        superseded: set[Digest] = set()
        left: set[Digest] = set()
        for number, other in await self._disk.checkpoints(self._run):
            known = self.lineage.tip(other)
            if known is not None and self.lineage.descends(tip, known):
                superseded.add(other)
            elif known is not None and not self.lineage.descends(known, tip):
                left.add(other)
            elif (
                known is None
                and number < tip.number
                and other in await self._hashes_on_disk(number)
            ):
                superseded.add(other)
        return superseded, left

    async def _resume_ledger(self) -> str:
        record = await self._disk.load_ledger(self._run)
        if record is None:
            listed = self.tip.last_seq.get(self._me, 0)
            self.ledger.next_seq = listed + 1
            return ""
        # A view of this parent was taken before its first byte was scattered: where none was, the
        # offer went to nobody.
        self.ledger.restore(record, given=record.tip in self._view_records)
        stood_at = self.lineage.tip(record.tip)
        if stood_at is None:
            self._dropped(
                self.ledger.drop(self.tip.last_seq.get(self._me, 0) + 1),
                "the ledger on disk stands at a certificate that is not known",
            )
            return ""
        self.ledger.settled = stood_at.last_seq.get(self._me, 0)
        if stood_at.hash != self.tip.hash:
            path = self.lineage.path(stood_at, self.tip)
            self.settle(stood_at, path)
            if not path:
                self.ledger.rest()
        return f", {self.ledger.pending} samples pending" if self.ledger.pending else ""

    # -------------------------------------------------------------------------------------------- offers and certificates

    async def make_offer(self, delta: Vector, samples: int) -> Offer:
        """Add what was trained, encode the next offer, make it durable.

        Raises `DiskFull`: then nothing may be offered.

        What cannot be encoded (a sum that went to infinity) is dropped, with a sentence, and
        nothing is offered.
        """

        self._offers.next_round()
        memory = self._offers.take(self.ledger.codec.size(self._info.parameters))

        def work() -> tuple[Offer, str]:
            self.ledger.add(delta, samples)
            try:
                return self.ledger.make_offer(memory), ""
            except ValueError as unfit:
                return NOTHING, str(unfit)

        async with self._ledger_lock:
            offer, unfit = await self._offload(work)
            if unfit:
                self._dropped(self.ledger.drop(self.ledger.next_seq), unfit)
            await self._disk.save_ledger(self.ledger.record(self._run, self._ledger_tip))
            return offer

    async def local(self) -> Vector:
        """The parameters that training goes on from; do not change them."""
        displacement = self.ledger.local
        return (
            self.anchor.value
            if displacement is None
            else await self._offload(lambda: self.anchor.value - displacement)
        )

    async def is_fit(self, delta: Vector) -> bool:
        """Whether the ledger may take it: every value is finite."""
        return await self._offload(lambda: is_finite(delta))

    async def add(self, delta: Vector, samples: int) -> None:
        """Add what was trained to what the next offer will hold."""
        async with self._ledger_lock:
            await self._offload(lambda: self.ledger.add(delta, samples))

    async def move_to(
        self, tip: Tip, path: list[OpenCertificate], credits: list[tuple[int, Vector]]
    ) -> None:
        """The spare buffers are the anchor of `tip` now; settle the ledger with every certificate
        on the way there.

        `credits` are what encoding lost of the slices this node summed for the last of them: (first
        element, W x (mean - decoded)).
        """
        before = self.tip
        self.anchor.adopt(tip.hash)
        self.tip = tip

        def work() -> None:
            self.settle(before, path)
            for start, error in credits:
                self.ledger.credit(start, error / np.float32(path[-1].rounds))
            self._ledger_tip = tip.hash

        async with self._ledger_lock:
            await self._offload(work)

    def settle(self, before: Tip, path: list[OpenCertificate]) -> None:
        """The ledger stood at `before` and goes along `path`."""
        if path and before.hash == self.lineage.root.hash and not self._founded(path[0]):
            self._dropped(
                self.ledger.drop(self.ledger.next_seq),
                "it was trained from the run's initial parameters, and the run is further",
            )
        if path and any(self.lineage.tip(parent) is None for parent in path[0].outcome.parents):
            self._dropped(
                self.ledger.drop(self.ledger.next_seq),
                "the run went on by more certificates than are kept, which may count it",
            )
        for certificate in path:
            last = certificate is path[-1]
            step = self.lineage.step(certificate.hash)
            beside = not last and (step is None or not self.lineage.descends(step.tip, before))
            listed = certificate.listed.get(self._me)
            known = listed is None or self.ledger.knows(listed)
            dropped = self.ledger.settle(listed, beside=beside, share=1 / certificate.rounds)
            why = (
                self._why(certificate, counted=listed is not None)
                if known
                else self._unknown(certificate)
            )
            self._dropped(dropped, why)

    def _founded(self, first: OpenCertificate) -> bool:
        """Whether this node began the run with the others.

        What a joiner trained before it had an anchor of the run fits no later one: counted in a
        certificate it threw a run back by five rounds.
        """
        return first.outcome.number == 1 and self._me in first.plan.index

    def _why(self, certificate: OpenCertificate, *, counted: bool) -> str:
        limits = self._manifest.limits
        if counted:
            return f"certificate {certificate.outcome.number} counts {limits.max_samples:,} samples of a member at most"
        return (
            f"certificate {certificate.outcome.number} {PASSED_BY}: what waits counts half as much,"
            f" and nothing after {limits.max_carry_rounds} certificates"
        )

    def _unknown(self, certificate: OpenCertificate) -> str:
        return f"certificate {certificate.outcome.number} counts later work of this node than its ledger on disk holds"

    def _warn(self, message: str) -> None:
        self._record(Warned(code="CHAIN", message=message))

    def _dropped(self, samples: int, why: str) -> None:
        if samples:
            self._record(WorkDropped(samples=samples, reason=why))

    # -------------------------------------------------------------------------------------------- writing

    async def write(
        self, records: list[tuple[int, bytes]], clock: Callable[[], float]
    ) -> list[tuple[int, bytes]]:
        """The lineage's new records (number, record), the ledger and the tip's checkpoint, in that
        order.

        A full disk is said once a round; training goes on. Returns the records that were not
        written: they go first the next time, since a chain with a gap cannot be read back.
        """
        waiting = list(records)
        began = clock()
        async with self.anchor.written:
            tip, value, momentum, inner = (
                self.tip,
                self.anchor.value,
                self.anchor.momentum,
                self.inner,
            )
            try:
                superseded, left = await self._fates(tip)
                # Before the certificates of its branch are cut off: a crash between the two leaves
                # a chain that names the rest.
                if left:
                    await self._disk.leave_checkpoints(self._run, left)
                for number, record in records:
                    await self._disk.append_certificate(self._run, number, record)
                    waiting.pop(0)
                async with self._ledger_lock:
                    # Where the anchor moved meanwhile, the ledger counts a certificate that is not
                    # on disk yet. The older record is right for what is there; the next write
                    # follows.
                    if self._ledger_tip == tip.hash:
                        await self._disk.save_ledger(self.ledger.record(self._run, tip.hash))
                await self._disk.save_checkpoint(
                    Checkpoint(
                        run=self._run,
                        tip=tip.hash,
                        number=tip.number,
                        anchor=value,
                        momentum=momentum,
                        inner=inner,
                        shapes=tuple((spec.name, spec.shape) for spec in self._info.specs),
                        stood=encode_tip(tip),
                    ),
                    superseded,
                )
            except DiskFull as full:
                self._record(
                    Warned(
                        code="DISK_FULL", message=f"checkpoint {tip.number} was not written: {full}"
                    )
                )
                return waiting
            except UserError as unread:
                # What was readable at the start: the node goes on, and the next start says what to
                # type.
                self._record(
                    Warned(
                        code=unread.code,
                        message=f"checkpoint {tip.number} was not written: {unread.what} ({unread.why})",
                    )
                )
                return waiting
        self._record(
            CheckpointWritten(
                number=tip.number,
                size_bytes=8 * self._info.parameters + 4 * inner.size,
                seconds=clock() - began,
            )
        )
        return []
