"""The hivemind engine: train until the round's end, hand what was learned to the hivemind process,
take the mean, train on.

    train ──clock──▶ ready (hivemind's matchmaking) ──▶ reduce (its all-reduce) ──▶ adopt (outer step) ──▶ train
      ▲                │ nobody, no group                │ it failed, or a hole was seen        │
      └────────────────┴── what was learned is kept ─────┘                 fetch ◀── most others stand elsewhere

It replaces the round machine whole. There is no plan, no cut and no vote: nothing of a round is
certified or paid, and two members may hold different anchors until one of them notices. Membership
is ours: beacons, peers and the observer know these nodes as any others.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.children.messages import CommandDone
from daemon.services.training.hivemind import policy
from daemon.services.training.hivemind.member_state import MemberState
from daemon.services.training.hivemind.messages import (
    AverageVector,
    DownloadState,
    MemberInfo,
    ShareState,
    StateDownloaded,
    VectorAveraged,
)
from daemon.services.training.hivemind.peer_discovery import connect_members, serve_addresses
from daemon.services.training.hivemind.process import HivemindLost, HivemindProcess, because
from daemon.services.training.hivemind.settings import PeerSettings
from daemon.services.training.hivemind.trainer_driver import TrainerDriver
from daemon.swarm.chain_sync import ChainReply, serve_chain, serve_manifest
from daemon.swarm.follower import Follower
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.task_agreement import serve_task
from daemon.swarm.training_speed import RecentTrainingSpeed
from protocol.identity import PeerId, Signer
from protocol.journal import (
    Alone,
    CaughtUp,
    CheckpointWritten,
    InputRefused,
    JournalEvent,
    PhaseEntered,
    RoundAveraged,
    Warned,
    WorkDropped,
)
from protocol.journal import (
    Contributor as Part,
)
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.ports.trainer import TaskInfo, Trainer
from protocol.run.manifest import SignedManifest

# Attempts at a state before training begins from our own.
DOWNLOADS = 3
DOWNLOAD_WAIT_S = 2.0  # between them


class HivemindEngine:
    """A node's part in a run of `engine = "hivemind"`."""

    def __init__(
        self,
        *,
        name: str,
        manifest: SignedManifest,
        signer: Signer,
        network: Network,
        trainer: Trainer,
        disk: Disk,
        offload: Offload,
        record: Callable[[JournalEvent], None],
        serial: Callable[[], int],
        wall_s: Callable[[], float],
        peer: PeerSettings,
    ) -> None:
        """`serial` as for the native engine; `wall_s` is unix seconds, by which rounds end.

        Raises `UserError` for a run that hivemind cannot do.
        """
        self._manifest = manifest.open()
        policy.check_manifest(self._manifest)
        self._name, self._run, self._me, self._peer_settings = name, manifest.run, signer.peer, peer
        self._network, self._trainer, self._disk, self._offload = network, trainer, disk, offload
        self._record, self._serial, self._wall_s = record, serial, wall_s
        self._members = Members(self._me, record, lambda _endpoint: None)
        self._messenger = Messenger(network, self._run, self._deliver, self._refuse)
        self._follower = Follower(
            network=network,
            run=self._run,
            signer=signer,
            lineage=Lineage(self._run, self._manifest),
            members=self._members,
            refuse=self._refuse,
            on_steps=lambda _steps: None,
            on_members=lambda: None,
            on_gone=lambda _peer: None,
            beacon=self._beacon,
            send=self._messenger.send,
        )
        self._settings = policy.averager_settings(self._run, self._manifest)
        self._process: HivemindProcess | None = None
        # Of the process, in which our state was shared last.
        self._shared_life = 0
        self._info: TaskInfo | None = None
        self._kept: MemberState | None = None
        self._phase = "starting"
        self._pace = RecentTrainingSpeed(trainer)
        self._finish = trio.Event()
        serve_chain(network, self._run, self._no_chain)
        serve_manifest(network, manifest, self._refuse, record)
        serve_task(network, lambda: self._members.tasks.ours)
        serve_addresses(
            network, lambda: self._process.maddrs if self._process and self._process.is_up else ()
        )

    # -------------------------------------------------------------------------------------------- the port

    def finish(self) -> None:
        self._finish.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._messenger.run)
            self._info = await self._trainer.describe()
            self._members.tasks.begin(self._info.task)
            self._members.compare_again()
            self._kept = kept = MemberState(
                run=self._run,
                manifest=self._manifest,
                info=self._info,
                disk=self._disk,
                offload=self._offload,
            )
            said = await kept.resume()
            process = HivemindProcess(
                self._peer_settings, self._settings, self._info.parameters, self._lost
            )
            self._process = process
            await nursery.start(self._follower.run)
            async with process.running():
                await process.up()
                nursery.start_soon(
                    connect_members,
                    self._network,
                    process,
                    lambda: self._members.live_at(self._run),
                    self._refuse,
                )
                if self._members.ahead_of(kept.number):
                    await self._catch_up(process, kept)
                training = TrainerDriver(self._trainer, kept, self._me, self._record)
                await training.restore_inner()
                self._enter("train", said)
                await training.train()
                task_status.started()
                while not self._finish.is_set():
                    if process.is_up and process.lives != self._shared_life:
                        await self._share(process, kept)
                    await self._round(process, training)
                await self._leave(training)
            nursery.cancel_scope.cancel()

    # -------------------------------------------------------------------------------------------- a round

    async def _round(self, process: HivemindProcess, training: TrainerDriver) -> None:
        """From training to training."""
        kept = training.kept
        with trio.move_on_after(
            max(0.0, policy.next_end(self._wall_s(), self._manifest.round.seconds) - self._wall_s())
        ):
            await self._finish.wait()
        if self._finish.is_set():
            return
        work = await training.collect()
        if work is None:
            return
        others = self._members.live_at(self._run)
        number = kept.number + 1
        if len(others) + 1 < self._manifest.group.min_peers:
            self._record(
                Alone(
                    number=number,
                    samples_pending=kept.samples,
                    reason="nobody else is alive in this run",
                )
            )
            await self._write_learned(kept)
            await self._go_on(training, others)
            return
        if not kept.samples:
            await self._go_on(training, others)
            return
        choice = policy.choose_group(len(others) + 1, self._manifest.group.max_group)
        self._enter("ready", choice.reason)
        mine = MemberInfo(
            peer=self._me,
            number=kept.number,
            samples=kept.samples,
            loss=work.loss,
            sketch=policy.sketch_of(kept.anchor),
        )
        answer = await self._average(process, kept, mine, choice.size)
        if self._finish.is_set():
            return
        if isinstance(answer, str):
            self._tell(number, "failed", (), answer, {})
            await self._go_on(training, others)
            return
        await self._judge(process, training, mine, answer, others)
        await self._write(kept)

    async def _average(
        self, process: HivemindProcess, kept: MemberState, mine: MemberInfo, group_size: int
    ) -> VectorAveraged | str:
        """The answer, or why there is none. Returns early when the node is to finish."""
        answer: VectorAveraged | str = "the node is stopping"

        async def ask(scope: trio.CancelScope) -> None:
            nonlocal answer
            process.vector[:] = kept.learned
            try:
                report = await process.ask(
                    lambda number: AverageVector(
                        id=number,
                        weight=float(kept.samples),
                        group_size=group_size,
                        find_s=policy.find_s(self._settings),
                        said=mine,
                    )
                )
                answer = report if isinstance(report, VectorAveraged) else because(report)
            except HivemindLost as lost:
                answer = f"the hivemind process is not there: {lost}"
            scope.cancel()

        if not process.is_up:
            return "the hivemind process is not up"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            await self._finish.wait()
            nursery.cancel_scope.cancel()
        return answer

    async def _judge(
        self,
        process: HivemindProcess,
        training: TrainerDriver,
        mine: MemberInfo,
        averaged: VectorAveraged,
        others: frozenset[PeerId],
    ) -> None:
        kept = training.kept
        number = kept.number + 1
        seconds = {"ready": averaged.matchmaking_s, "reduce": averaged.all_reduce_s}
        judgement = policy.decide_round(averaged, mine)
        if judgement.what == "apply":
            try:
                await kept.apply(process.vector)
            except ValueError as unfit:
                judgement = policy.RoundDecision(what="keep", reason=str(unfit))
        if judgement.what == "apply":
            self._tell(number, "averaged", averaged.said, judgement.reason, seconds)
            await self._share(process, kept)
            self._enter("train", f"round {number} is averaged, not certified")
            await training.train(others)
        elif judgement.what == "keep":
            self._tell(number, "partial", averaged.said, judgement.reason, seconds)
            await self._go_on(training, others)
        else:
            self._tell(number, "apart", averaged.said, judgement.reason, seconds)
            caught_up = await self._catch_up(process, kept)
            await (training.train(others) if caught_up else self._go_on(training, others))

    def _tell(
        self,
        number: int,
        outcome: str,
        said: tuple[MemberInfo, ...],
        reason: str,
        seconds: dict[str, float],
    ) -> None:
        samples = sum(one.samples for one in said)
        losses = [(one.loss, one.samples) for one in said if one.loss is not None]
        weight = sum(samples for _, samples in losses)
        self._record(
            RoundAveraged(
                number=number,
                outcome=outcome,
                shares=tuple(
                    Part(peer=one.peer, samples=one.samples, loss=one.loss) for one in said
                ),
                samples=samples,
                loss=sum(loss * samples for loss, samples in losses) / weight if weight else None,
                phase_seconds=seconds,
                reason=reason,
            )
        )

    async def _go_on(self, training: TrainerDriver, others: frozenset[PeerId]) -> None:
        """From the local parameters: what was learned stays, and waits."""
        self._enter("train", f"{training.kept.samples} samples wait for the next round")
        await training.go_on(others)

    # -------------------------------------------------------------------------------------------- state

    async def _share(self, process: HivemindProcess, kept: MemberState) -> None:
        """Give newcomers this state."""
        process.anchor[:], process.momentum[:] = kept.anchor, kept.momentum
        try:
            report = await process.ask(lambda number: ShareState(id=number, number=kept.number))
        except HivemindLost:
            # Its death is told where it happened; the next round shares again.
            return
        if isinstance(report, CommandDone):
            self._shared_life = process.lives

    async def _catch_up(self, process: HivemindProcess, kept: MemberState) -> bool:
        """Take another member's state, through hivemind: nobody vouches for it but whoever gives
        it.
        """
        began = trio.current_time()
        self._enter("fetch", "others are further; taking the state of one of them")
        why = ""
        for attempt in range(DOWNLOADS):
            with trio.move_on_after(DOWNLOAD_WAIT_S if attempt else 0.0):
                await self._finish.wait()
            try:
                report = await process.ask(lambda number: DownloadState(id=number))
            except HivemindLost as lost:
                why = str(lost)
                continue
            if isinstance(report, StateDownloaded) and report.number >= kept.number:
                if kept.samples:
                    self._record(
                        WorkDropped(
                            samples=kept.samples, reason="the state was taken from another member"
                        )
                    )
                kept.take(report.number, process.anchor, process.momentum)
                took_s = trio.current_time() - began
                self._record(
                    CaughtUp(
                        number=report.number,
                        source="",
                        size_bytes=2 * kept.anchor.nbytes,
                        seconds=took_s,
                    )
                )
                await self._share(process, kept)
                return True
            why = (
                f"the state offered is of round {report.number}"
                if isinstance(report, StateDownloaded)
                else because(report)
            )
        self._record(
            Warned(
                code="STATE",
                message=f"going on from round {kept.number} without the others' state: {why}",
            )
        )
        return False

    async def _write(self, kept: MemberState) -> None:
        began = trio.current_time()
        try:
            await kept.write()
        except DiskFull as full:
            self._record(
                Warned(
                    code="DISK_FULL",
                    message=f"the state of round {kept.number} is not on disk: {full}",
                )
            )
            return
        self._record(
            CheckpointWritten(
                number=kept.number,
                size_bytes=2 * kept.anchor.nbytes,
                seconds=trio.current_time() - began,
            )
        )

    async def _leave(self, training: TrainerDriver) -> None:
        """What was trained since the last average is the first thing given after a restart."""
        await training.leave()
        await self._write_learned(training.kept)

    async def _write_learned(self, kept: MemberState) -> None:
        """The state, and what was learned since: a restart goes on from there, whatever ended the
        node.
        """
        await self._write(kept)
        try:
            await kept.write_learned()
        except DiskFull as full:
            self._record(
                Warned(
                    code="DISK_FULL",
                    message=f"{kept.samples} samples would be lost if this node ended now: {full}",
                )
            )

    # -------------------------------------------------------------------------------------------- the others

    def _beacon(self) -> Beacon:
        pace = self._pace.now(trio.current_time())
        return Beacon(
            serial=self._serial(),
            name=self._name,
            role="node",
            number=self._kept.number if self._kept else 0,
            tip=self._run,  # there is no certificate to stand at
            view=0,
            phase=self._phase,
            samples=self._trainer.progress().samples,
            loss=pace.loss,
            samples_per_second=pace.samples_per_second,
            device=self._info.device if self._info else "",
            endpoint=None,
            task=self._members.tasks.name,
        )

    async def _no_chain(self, _first: int, _limit: int) -> tuple[ChainReply, list[bytes]]:
        """There are no certificates."""
        await trio.lowlevel.checkpoint()
        return ChainReply(tip=self._run, number=0, age_s=0.0, count=0), []

    async def _deliver(self, signed: Signed, message: AnyMessage) -> None:
        await trio.lowlevel.checkpoint()
        if not self._follower.take(signed, message):
            self._refuse(
                "not_member",
                signed.peer,
                f"a {type(message).__name__} in a run without certificates",
            )

    def _refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        self._record(InputRefused(reason=reason, peer=peer, detail=detail))

    def _lost(self, why: str) -> None:
        self._record(Warned(code="HIVEMIND", message=f"the hivemind process ended: {why}"))

    def _enter(self, phase: str, reason: str) -> None:
        number = self._kept.number + 1 if self._kept else 1
        self._phase = phase
        self._record(PhaseEntered(number=number, view=0, phase=phase, reason=reason))
        self._follower.poke()
