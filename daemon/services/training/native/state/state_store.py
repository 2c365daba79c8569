"""Keeps a node's anchor, ledger, views, certificates and results, in memory and on disk.

The order of writes makes a crash at any instant harmless, and a power cut of all nodes at once:

1.  The ledger's mark is durable before an offer is made (`ledger_store.py`), and the use of a view
    before anything is sent in it (`view_store.py`).
2.  The results of a round are durable on its keepers before they vote (`result_store.py`). A
    certificate without the vote of a keeper gets its results written by each node that adopts it,
    before that node writes the certificate. So every certificate on any disk has its results on
    some disk, or a full state that is newer.
3.  Certificates are appended once they are adopted.
4.  The full state follows every few minutes (`full_states.py`): first the ledger, then the
    checkpoint. A crash between them leaves a ledger that is newer than the checkpoint. Then the
    results that the new checkpoint makes useless are removed. A download, a merge or another branch
    does not follow by results: such a state is written with its certificate.

A restart loads the last full state and replays results from disk, then from members
(`downloads.py`). It trains on from the anchor minus the displacement that the ledger holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import numpy as np
import trio

from daemon.services.training.native.engine_context import EngineContext
from daemon.services.training.native.exchange.result_buffer import EncodingLosses
from daemon.services.training.native.state.anchor import Anchor
from daemon.services.training.native.state.chain_store import ChainStore
from daemon.services.training.native.state.full_states import FullStates
from daemon.services.training.native.state.inner_state import InnerState
from daemon.services.training.native.state.ledger_store import LedgerStore
from daemon.services.training.native.state.replay_from_disk import replay_from_disk, returning_state
from daemon.services.training.native.state.result_store import ResultStore
from daemon.services.training.native.state.view_store import ViewStore
from daemon.swarm.lineage import Lineage
from protocol.averaging.outer_step import state_leaves
from protocol.averaging.replay import State
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip, decode_tip, encode_tip
from protocol.contribution.ledger import Ledger
from protocol.contribution.offer import is_finite
from protocol.digest import merkle_root
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.journal import CheckpointWritten, DiskReport, JournalEvent, Warned
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import Offload
from protocol.ports.trainer import TaskInfo
from protocol.round.state import ReturningState
from protocol.run.initial_parameters import initial_parameters


class StateStore:
    """One node's durable state in one run."""

    def __init__(
        self,
        *,
        context: EngineContext,
        info: TaskInfo,
        lineage: Lineage,
        disk: Disk,
        offload: Offload,
        record: Callable[[JournalEvent], None],
        genesis: Callable[[], Awaitable[Vector]] | None = None,
    ) -> None:
        """`genesis` computes the run's first parameters. Default: those of the run's seed."""
        run, me, manifest = context.run, context.me, context.manifest
        self.anchor = Anchor(info.parameters, manifest)
        self.ledger_store = LedgerStore(
            me=me,
            manifest=manifest,
            parameters=info.parameters,
            lineage=lineage,
            disk=disk,
            offload=offload,
            record=record,
        )
        self.results = ResultStore(
            run=run,
            me=me,
            codec=manifest.codec,
            parameters=info.parameters,
            lineage=lineage,
            disk=disk,
            offload=offload,
            record=record,
        )
        self.full_states = FullStates(context.disk, lambda: disk.written_bytes, record)
        self.views = ViewStore(run, disk)
        self.lineage = lineage
        self.manifest = manifest
        self.tip: Tip = lineage.root
        self.returning: ReturningState | None = None
        self.inner = InnerState(run, info.parameters, disk, self._warn)
        self._run, self._me, self._info = run, me, info
        self._chain = ChainStore(run, disk, lineage)
        self._disk, self._offload, self._record = disk, offload, record
        self._genesis = genesis or self._seeded

    @property
    def me(self) -> PeerId:
        """The node whose state this is."""
        return self._me

    @property
    def ledger(self) -> Ledger:
        """The ledger in memory."""
        return self.ledger_store.ledger

    # ---------------------------------------------------------------- resuming

    async def resume(self) -> str:
        """Continue from what is on disk, or begin at genesis.

        Returns:
            A sentence that says which of the two happened.

        Raises:
            UserError: "TASK_CHANGED" where the disk holds another model than the task makes;
                "DAMAGED" where certified state cannot be read. The store never begins anew on a
                damaged disk.
        """
        checkpoint = await self._disk.load_checkpoint(self._run)
        await self.views.resume()
        last = await self._chain.resume(checkpoint)
        tip = self.lineage.tip(checkpoint.tip) if checkpoint else None
        if checkpoint is not None and tip is None:
            # The owner's recovery is no certificate; the checkpoint names its tip.
            stood = decode_tip(checkpoint.stood)
            if stood is not None and stood.hash == checkpoint.tip and self._is_recovery(stood):
                self.lineage.adopt(stood)
                tip = stood
        if checkpoint is not None and tip is None:
            raise self._disk.damage(
                self._run,
                f"The certificate of checkpoint {checkpoint.number} is not on disk;"
                f" the certificates on disk end with number {last}.",
            )
        if tip is None and last:
            self._warn(
                "CHAIN",
                f"The state of certificate {last} is not on disk."
                " Downloading it from the members of the run.",
            )
        if checkpoint is None or tip is None:
            await self._begin_at_genesis()
            summary = "beginning at genesis"
        else:
            self._begin_at(checkpoint, tip)
            summary = f"resuming from certificate {tip.number}"
            self.full_states.resumed(tip.number, trio.current_time())
        digest = await self.anchor.digest_spare(self._offload)
        if self.tip.state and digest != self.tip.state:
            raise self._disk.damage(
                self._run,
                f"Checkpoint {self.tip.number} does not have the state that its certificate names.",
            )
        self.anchor.adopt(self.tip.hash)
        results, lineage = self.results, self.lineage
        tip = await replay_from_disk(
            self.tip, self.manifest, self.anchor, results, lineage, self._offload, self._warn
        )
        if tip.number > self.tip.number:
            self.tip = tip
            summary += f", replayed to certificate {tip.number}"
        self.returning = returning_state(lineage, self.tip, trio.current_time())
        return summary + await self.ledger_store.resume(
            self.tip, view_taken=lambda parent: parent in self.views.records
        )

    def _is_recovery(self, tip: Tip) -> bool:
        """Return whether a tip is that of an owner's recovery: its record begins with itself."""
        return tip.record is not None and tip.record.tips == (tip.hash,)

    async def _seeded(self) -> Vector:
        return await self._offload(lambda: initial_parameters(self._info.specs, self.manifest.seed))

    async def _begin_at_genesis(self) -> None:
        self.anchor.spare_value[:] = await self._genesis()
        # The spare momentum is zeros.

    def _begin_at(self, checkpoint: Checkpoint, tip: Tip) -> None:
        if checkpoint.anchor.size != self._info.parameters:
            raise UserError(
                "TASK_CHANGED",
                "The task makes another model than the one in this home.",
                why=f"the checkpoint has {checkpoint.anchor.size:,} parameters,"
                f" the task {self._info.parameters:,}",
                fix="use the version of the task that the model was trained with, or begin another"
                " run: another name or seed in its run file",
                exit_code=2,
            )
        self.anchor.spare_value[:] = checkpoint.anchor
        if checkpoint.momentum.any():
            self.anchor.spare_momentum[:] = checkpoint.momentum
        self.tip = tip
        self.inner.resume(checkpoint.inner)

    def _warn(self, code: str, message: str) -> None:
        self._record(Warned(code=code, message=message))

    # ---------------------------------------------------------------- training and adopting

    async def local(self) -> Vector:
        """Return the parameters that training continues from. Do not change them."""
        displacement = self.ledger.local
        return (
            self.anchor.value
            if displacement is None
            else await self._offload(lambda: self.anchor.value - displacement)
        )

    @property
    def position(self) -> int:
        """The place of the local parameters in the run's schedules, in samples."""
        return self.tip.samples + self.ledger.samples + self.ledger.later_samples

    async def is_fit(self, delta: Vector) -> bool:
        """Return whether the ledger may include `delta`: whether every value is finite."""
        return await self._offload(lambda: is_finite(delta))

    async def move_to(self, tip: Tip, path: list[OpenCertificate], losses: EncodingLosses) -> None:
        """Make the spare buffers the anchor of `tip`, and settle the ledger along `path`.

        `losses` is what encoding lost of the slices that this node finished for the last
        certificate of `path`.
        """
        before = self.tip
        self.anchor.adopt(tip.hash)
        self.tip = tip
        returning = self.returning
        held = self.lineage.tip(returning.certificate) if returning is not None else None
        if held is not None and not self.lineage.descends(held, tip):
            self.returning = None
        await self.ledger_store.move_to(before, tip, path, losses)

    async def state_at(self, tip: Tip) -> State | None:
        """Return copies of the state of a tip, from memory or from any branch on disk.

        None where this node does not have it, or has another one.
        """
        anchor, size = self.anchor, self._info.parameters
        if tip.hash == self.tip.hash:
            return anchor.value.copy(), anchor.momentum.copy()
        if tip.number == 0 and not tip.state:
            return await self._genesis(), np.zeros_like(anchor.momentum)
        kept = await self._disk.open_state(tip.hash)
        if kept is None:
            return None
        try:
            data = await kept.read(0, 8 * size)
        finally:
            await kept.aclose()
        if data is None or len(data) != 8 * size:
            return None
        both = np.frombuffer(data, "<f4").astype(np.float32)
        state = both[:size], both[size:].copy()
        leaves = await self._offload(lambda: state_leaves(*state))
        return state if merkle_root(leaves) == tip.state else None

    async def recover(self, tip: Tip, state: State) -> None:
        """Make a state the anchor of the owner's recovery, and leave the branch of before.

        Work since the certificate that the owner named fits no longer, and is dropped.
        """
        leaves = await self._offload(lambda: state_leaves(*state))
        await self.anchor.receive(*state, leaves)
        self.anchor.adopt(tip.hash)
        self.tip = tip
        self.full_states.needed = True
        await self.ledger_store.recover(tip)
        try:
            await self._chain.leave(tip)
        except (DiskFull, UserError) as unwritten:
            self._warn("DISK_FULL", f"the branch of before was not set aside: {unwritten}")

    # ---------------------------------------------------------------- writing

    async def write(
        self, records: list[tuple[int, bytes]], clock: Callable[[], float], *, full: bool = False
    ) -> list[tuple[int, bytes]]:
        """Write the lineage's new records (number, record), and the full state if it is due.

        `full` writes the full state in any case. A disk that cannot be written is reported, and
        training goes on.

        Returns:
            The records that were not written. The next write begins with them, because a chain
            with a gap cannot be read.
        """
        unwritten = list(records)
        full = full or self.is_full_state_due(clock())
        inner = await self.inner.present() if full else self.inner.vector
        # The anchor may move on meanwhile, to a certificate that is not on disk yet.
        tip = self.tip
        try:
            async with self.anchor.written:
                state = (self.anchor.value, self.anchor.momentum)
                if await self._chain.append(tip, unwritten):
                    self.full_states.needed = True
                if full:
                    await self._write_full_state(tip, state, inner, clock)
        except DiskFull as full_disk:
            self.full_states.needed = True
            self._warn("DISK_FULL", f"checkpoint {tip.number} was not written: {full_disk}")
        except UserError as unread:
            # The disk was readable at the start. The node goes on, and the next start reports how
            # to repair the disk.
            self.full_states.needed = True
            self._warn(
                unread.code,
                f"checkpoint {tip.number} was not written: {unread.what} ({unread.why})",
            )
        self._record(
            DiskReport(
                written_bytes=self._disk.written_bytes,
                hourly_bytes=self.full_states.hourly_bytes(clock()),
            )
        )
        return unwritten

    def is_full_state_due(self, now: float, *, alone: bool = False) -> bool:
        """Return whether the next write includes the full state."""
        return self.full_states.is_due(self.tip.number, self._full_bytes(), now, alone=alone)

    def _full_bytes(self) -> int:
        """About the bytes of a full state."""
        state = 8 * self._info.parameters + self.inner.size_bytes
        return state + self.ledger_store.size_bytes()

    async def _write_full_state(
        self, tip: Tip, state: State, inner: Vector, clock: Callable[[], float]
    ) -> None:
        began = clock()
        others = await self._chain.other_checkpoints(tip)
        await self.ledger_store.save(tip)
        checkpoint = Checkpoint(
            run=self._run,
            tip=tip.hash,
            number=tip.number,
            anchor=state[0],
            momentum=state[1],
            inner=inner,
            shapes=tuple((spec.name, spec.shape) for spec in self._info.specs),
            stood=encode_tip(tip),
            task=self.manifest.task,
            task_options=msgspec.json.encode(self.manifest.task_options).decode(),
        )
        await self._disk.save_checkpoint(checkpoint, others.superseded)
        self.inner.written(inner)
        now = clock()
        self.full_states.written(tip.number, now)
        await self.results.drop(tip.number)
        self._record(
            CheckpointWritten(
                number=tip.number,
                size_bytes=8 * self._info.parameters + 4 * inner.size,
                seconds=now - began,
                hourly_bytes=self.full_states.hourly_bytes(now),
            )
        )
