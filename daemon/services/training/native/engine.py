"""The native engine: feeds the round machine what happens and does what it asks for.

One loop takes events in order and steps the machine; whatever takes time runs in a task of its own
and reports back as an event. What a view started is cancelled when the view ends. All decisions are
in `protocol/round`; this module only acts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from daemon.services.training.native.audit.auditor import Auditor
from daemon.services.training.native.audit.fraud_proofs import FraudProofs
from daemon.services.training.native.beacon_builder import BeaconBuilder
from daemon.services.training.native.exchange.data_plane import DataPlane
from daemon.services.training.native.rounds.event_queue import EventQueue
from daemon.services.training.native.rounds.message_translator import MessageTranslator
from daemon.services.training.native.rounds.round_executor import RoundExecutor
from daemon.services.training.native.rounds.round_log import RoundLog
from daemon.services.training.native.state.downloads import Downloads
from daemon.services.training.native.state.fork_choice import ForkChoice
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.chain_sync import ChainReply, serve_chain, serve_manifest
from daemon.swarm.follower import Follower
from daemon.swarm.lineage import Lineage, LineageEntry
from daemon.swarm.members import Members, stranger_patience_s
from daemon.swarm.messenger import Messenger
from daemon.swarm.state_transfer import StateServer, serve_state
from daemon.swarm.task_agreement import serve_task
from daemon.system.trio_types import TaskStatus
from protocol.averaging.vector_layout import chunk_count
from protocol.certificates.certificate import OpenCertificate, Tip, certificate_hash
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer
from protocol.journal import InputRefused, JournalEvent, Warned
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import AnyMessage, payload_of, sign
from protocol.messages.offer import Binding, Ready
from protocol.messages.round import Announce
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.ports.trainer import TaskInfo, Trainer
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.state import RoundState, RunContext
from protocol.run.manifest import SignedManifest

SEEKING = {
    Phase.TRAIN,
    Phase.OFFER,
    Phase.READY,
    Phase.SCATTER,
    Phase.REDUCE,
    Phase.VOTE,
    Phase.WATCH,
}
"""Phases of a node's own rounds, beside which it looks for states that it has done without so far."""


class NativeEngine:
    """A node's part in a run of `engine = "native"`."""

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
        binding: Binding | None = None,
        left_out: Callable[[PeerId], str] = lambda _: "",
    ) -> None:
        """`serial` gives a growing number for beacons, across restarts too (the wall clock in
        nanoseconds in a real node).

        `binding` names the wallet that this node works for, in each of its offers. `left_out` says
        why a peer is not let into this node's plans, or nothing.
        """
        self._run, self._signer, self._me = manifest.run, signer, signer.peer
        self._manifest = manifest.open()
        self._network, self._trainer, self._disk, self._offload = network, trainer, disk, offload
        self._record = record
        self._binding = binding
        self._standing = BeaconBuilder(
            name=name, run=manifest.run, network=network, trainer=trainer, disk=disk, serial=serial
        )
        self._lineage = Lineage(self._run, self._manifest)
        self._members = Members(self._me, record, network.admit)
        self._downloads: Downloads | None = None
        self._course = ForkChoice(
            self._lineage,
            self._members,
            lambda: self._downloads.underway if self._downloads else None,
            lambda: self._downloads.arrived if self._downloads else frozenset(),
        )
        self._messenger = Messenger(network, self._run, self._deliver, self._refuse)
        self._exchanging = DataPlane(
            network=network,
            run=self._run,
            signer=signer,
            codec=self._manifest.codec,
            members=self._members,
            offload=offload,
            emit=self._emit,
            refuse=self._refuse,
        )
        self.convictions = FraudProofs(
            me=self._me,
            manifest=manifest,
            network=network,
            lineage=self._lineage,
            disk=disk,
            offload=offload,
            refuse=self._refuse,
            record=record,
            parameters=lambda: self._parameters,
        )
        guilty = self.convictions.guilty
        self._auditing = Auditor(
            manifest=manifest,
            signer=signer,
            network=network,
            offload=offload,
            refuse=self._refuse,
            record=record,
            parameters=lambda: self._parameters,
            guilty=guilty,
            convict=self.convictions.convict,
        )
        untrusted = self.convictions.distrusted
        self._incoming = MessageTranslator(
            self._run,
            self._lineage.plans,
            self._emit,
            self._refuse,
            guilty,
            lambda peer: left_out(peer) or untrusted(peer),
            self._members.tasks,
        )
        self._lineage.refuses_task = self._members.tasks.refusal
        self._follower = Follower(
            network=network,
            run=self._run,
            signer=signer,
            lineage=self._lineage,
            members=self._members,
            refuse=self._refuse,
            on_steps=self._certified,
            on_members=self._members_changed,
            on_gone=lambda peer: self._emit(e.PeerLost(peer=peer)),
            beacon=lambda: self._standing.beacon(
                self._state, self._info, self._members.tasks.name, self._arriving
            ),
            send=self._messenger.send,
        )
        self._leaves: dict[Digest, list[Digest]] = {}
        self.state_store: StateStore | None = None
        self._work: RoundExecutor | None = None
        self._info: TaskInfo | None = None
        self._state: RoundState | None = None
        self._inbox = EventQueue()
        self._nursery: trio.Nursery | None = None
        self._finishing = False
        self._logbook = RoundLog(self._me, record)
        serve_chain(network, self._run, self._answer_chain)
        serve_manifest(network, manifest, self._refuse, record)
        serve_task(network, lambda: self._members.tasks.ours)
        self._given = StateServer(disk, self._leaves, lambda: self._parameters, self._current_state)
        serve_state(network, self._given)

    # -------------------------------------------------------------------------------------------- the loop

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled or finished; started when training has begun."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._messenger.run)
            await nursery.start(self._exchanging.sender.run)
            self._info = await self._trainer.describe()
            self._members.tasks.begin(self._info.task)
            self._members.compare_again()
            chunks = chunk_count(self._info.parameters)
            self._lineage.chunks = chunks
            self.state_store = StateStore(
                run=self._run,
                me=self._me,
                manifest=self._manifest,
                info=self._info,
                lineage=self._lineage,
                disk=self._disk,
                offload=self._offload,
                record=self._record,
            )
            said = await self.state_store.resume()
            await self.convictions.recall()
            self._downloads = Downloads(
                network=self._network,
                lineage=self._lineage,
                members=self._members,
                state_store=self.state_store,
                offload=self._offload,
                emit=self._emit,
                record=self._record,
                refuse=self._refuse,
            )
            work = self._work = RoundExecutor(
                me=self._me,
                manifest=self._manifest,
                network=self._network,
                trainer=self._trainer,
                lineage=self._lineage,
                members=self._members,
                course=self._course,
                downloads=self._downloads,
                follower=self._follower,
                exchanging=self._exchanging,
                state_store=self.state_store,
                offload=self._offload,
                logbook=self._logbook,
                leaves=self._leaves,
                binding=self._binding,
                emit=self._emit,
                record=self._record,
            )
            context = RunContext(run=self._run, me=self._me, manifest=self._manifest, chunks=chunks)
            self._state = begin(
                context,
                self.state_store.tip,
                trio.current_time(),
                view_records=self.state_store.views.records,
            )
            self._follower.stand(self.state_store.tip)
            self._logbook.began(self._state, said, trio.current_time())
            await work.training.begin()
            nursery.start_soon(work.training.attend)
            await nursery.start(self._follower.run)
            nursery.start_soon(self._watch_steps)
            # What came in while the trainer was starting.
            self._certified([])
            task_status.started()
            while not self._finishing:
                event = await self._inbox.next(self._state.deadline)
                if event is not None:
                    await self._step(event)
                if self._inbox.ready:
                    # With nothing left to step, the wait for news gives others their turn.
                    await trio.lowlevel.checkpoint()
            self._exchanging.abandon()
            await work.leave()
            nursery.cancel_scope.cancel()

    async def _step(self, event: e.Event) -> None:
        before = self._state
        assert before is not None
        now = trio.current_time()
        if isinstance(event, e.DeadlinePassed) and before.phase is Phase.READY:
            event = e.DeadlinePassed(training=self._members.training_at(before.tip.hash))
        self._state, actions = step(before, event, now)
        self._logbook.moved(before, self._state, now)
        for action in actions:
            if not isinstance(action, a.PersistView):
                self._act(action)
            elif not await self._persist_view(action):
                break
        if isinstance(event, e.PeerLost):
            self._exchanging.lost(event.peer)
        if isinstance(event, e.CertificateAdopted):
            self._remember(before.target)
            self._after_adopted()
        elif before.parent != self._state.parent:
            self._look_again()
        if before.phase is not self._state.phase or (
            isinstance(event, e.StateBytesReceived) and self._arriving is not None
        ):
            self._follower.poke()

    async def _persist_view(self, action: a.PersistView) -> bool:
        """Waited for by everything else: what comes in meanwhile waits in the inbox."""
        assert self.state_store is not None
        try:
            await self.state_store.views.persist(action.parent, action.view)
        except DiskFull as full:
            self._emit(e.ViewNotPersisted(reason=str(full)), first=True)
            return False
        return True

    def _emit(self, event: e.Event, first: bool = False) -> None:
        self._inbox.put(event, first=first)

    @property
    def _parameters(self) -> int:
        return self._info.parameters if self._info else 0

    @property
    def state(self) -> RoundState | None:
        """Where this node stands in its round; None before it has begun."""
        return self._state

    @property
    def waiting(self) -> int:
        """Events that wait to be stepped."""
        return len(self._inbox)

    def finish(self) -> None:
        self._finishing = True
        self._inbox.wake()

    # -------------------------------------------------------------------------------------------- acting

    def _act(self, action: a.Action) -> None:
        work, state_store = self._work, self.state_store
        assert work is not None
        assert state_store is not None
        match action:
            case a.RecordEvent(event=event):
                self._record(event)
            case a.Send(to=to, message=message):
                self._send(to, message)
            case a.Forward(to=to, signed=signed):
                for peer in to:
                    self._messenger.send(peer, signed)
            case a.MakeOffer():
                self._auditing.let_go()
                self._start(work.make_offer)
            case a.ResumeTraining():
                self._start(work.train_on)
            case a.Scatter(plan=plan, offer=offer):
                state_store.ledger.give_out()
                self._auditing.offered(plan.digest, offer)
                self._exchanging.scatter(plan, offer, state_store.anchor)
            case a.Reduce(inclusion=cut, digest=name):
                self._start(self._exchanging.reduce, cut, name, state_store.anchor)
            case a.ServeInclusion(inclusion=cut, digest=name):
                self._start(self._exchanging.serve, cut, name)
            case a.ForwardResults(plan=plan_digest, slices=slices, to=members):
                self._exchanging.hand_on(plan_digest, slices, members)
            case a.AbandonExchange():
                self._exchanging.abandon()
            case a.RequestCertificate(peers=peers):
                self._start(self._follower.ask, peers)
            case a.PublishCertificate(certificate=certificate, to=to, gossip=gossip):
                self._publish(certificate, to, gossip)
            case a.AdoptCertificate(certificate=certificate, downloaded=downloaded):
                self._start(partial(work.adopt, certificate, downloaded=downloaded))
            case a.AuditReducers(certificate=certificate, disputed=disputed):
                received, samples = (
                    self._exchanging.received(certificate),
                    self._exchanging.samples(certificate),
                )
                self._start(self._auditing.look, certificate, received, samples, disputed)
                self._start(self.convictions.tell)
            case a.FetchState(certificate=certificate):
                self._start(work.fetch, certificate)
            case a.GiveUpState(certificate=name, merging=merging, held_s=held_s):
                work.give_up(name, merging=merging, held_s=held_s)
            case a.FetchBranch(other=other):
                if (made := self._lineage.step(other.hash)) is not None:
                    self._start(work.fetch, made.certificate)
                else:
                    self._emit(
                        e.StateUnavailable(
                            certificate=other.hash,
                            reason=f"certificate {other.number} is not known any more",
                        )
                    )
            case a.AverageBranches(other=other):
                self._start(work.average, other)
            case a.Refuse(peer=peer, reason=reason, detail=detail):
                self._refuse(reason, peer, detail)

    def _start(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(work, *arguments)

    def _refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        self._record(InputRefused(reason=reason, peer=peer, detail=detail))

    def _send(self, to: tuple[PeerId, ...], message: Message) -> None:
        signed = sign(self._signer, self._run, message)
        for peer in to:
            if peer == self._me:
                self._happened(signed, message, ours=True)
            else:
                self._messenger.send(peer, signed)

    def _publish(self, certificate: OpenCertificate, to: tuple[PeerId, ...], gossip: bool) -> None:
        """Add a certificate that was assembled here to the lineage and send it out.

        The machine adopts it by itself. A lineage that refuses it refuses `adopt` as well.
        """
        try:
            self._follower.take_certificate(certificate.raw)
        except PeerFault as fault:
            self._record(
                Warned(
                    code="CERTIFICATE",
                    message=f"a certificate assembled here does not verify: {fault}",
                )
            )
            return
        signed = sign(self._signer, self._run, Announce(certificate=certificate.raw))
        for peer in to:
            self._messenger.send(peer, signed)
        if gossip:
            self._start(self._follower.publish_certificate, certificate.raw)

    # -------------------------------------------------------------------------------------------- what comes in

    async def _deliver(self, signed: Signed, message: AnyMessage) -> None:
        """A verified message from a peer."""
        while self._inbox.full or self._state is None:
            # The sender waits with us: its stream is not read on.
            await trio.sleep(0.05)
        if isinstance(message, Ready):
            self._members.took_part(signed.peer, trio.current_time())
        if not self._follower.take(signed, message):
            self._happened(signed, message)

    def _happened(self, signed: Signed, message: Message, *, ours: bool = False) -> None:
        assert self._state is not None
        self._incoming.take(self._state, signed, message, ours=ours)

    def _certified(self, steps: list[LineageEntry]) -> None:
        """Certificates joined the lineage, or there is time for those that did before: go where it
        leads now.
        """
        for made in steps:
            self._exchanging.certified(made.certificate.plan.digest)
        state = self._state
        if state is None:
            return
        now = trio.current_time()
        event = self._course.leads(
            state.tip,
            now,
            certificate_hash(self._run, payload_of(state.spare)) if state.spare else None,
        )
        if event is not None:
            self._emit(event)
        elif (wanted := self._course.seeks(state.tip, now)) is not None and state.phase in SEEKING:
            assert self._work is not None
            self._start(self._work.fetch, wanted)

    @property
    def _arriving(self) -> Tip | None:
        """Where this node will stand in a moment, with all of a state here or nearly."""
        state = self._state
        if (
            state is None
            or state.phase is not Phase.FETCH
            or state.target is None
            or self._downloads is None
        ):
            return None
        eta_s = self._downloads.eta_s(state.target.hash)
        return (
            self._lineage.tip(state.target.hash) if eta_s <= self._manifest.round.ready_s else None
        )

    def _current_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Bytes of the anchor, for those who download it, while it is that of `tip`."""
        state_store = self.state_store
        return (
            state_store.anchor.read(offset, size)
            if state_store is not None
            and state_store.tip.hash == tip
            and tip in state_store.anchor.leaves
            else None
        )

    def _members_changed(self) -> None:
        state = self._state
        if state is not None:
            now, patience_s = trio.current_time(), stranger_patience_s(self._manifest.round)
            live = self._members.awaited_at(state.tip.hash, now, patience_s)
            if state.merge is not None:
                live |= self._members.awaited_at(state.merge.other.hash, now, patience_s)
            avoided = self._members.neighbours.avoided(live, now)
            if live != state.live or avoided != state.avoided:
                changed = e.LivePeersChanged(live=live, avoided=avoided)
                if changed not in self._inbox:
                    self._emit(changed)
            # A branch may have found somebody to give its anchor.
            self._certified([])

    async def _watch_steps(self) -> None:
        """With rounds counted in steps, training ends when the trainer has done them."""
        wanted = self._manifest.round.steps
        while wanted:
            await trio.sleep(0.05)
            state = self._state
            if (
                state is not None
                and state.phase is Phase.TRAIN
                and self._trainer.progress().steps >= wanted
            ):
                self._emit(e.TrainingFinished())
                await trio.sleep(0.2)

    async def _answer_chain(self, first: int, limit: int) -> tuple[ChainReply, list[bytes]]:
        return await self._standing.chain(
            self._state, self._work.moving if self._work else None, first, limit
        )

    # -------------------------------------------------------------------------------------------- moving on

    def _remember(self, certificate: OpenCertificate | None) -> None:
        """Who of a plan with us was there to the end."""
        plan = certificate.plan if certificate is not None else None
        if (
            certificate is not None
            and plan is not None
            and self._me in plan.index
            and len(certificate.outcome.parents) == 1
        ):
            there = frozenset(plan.members[i] for i in certificate.inclusion.present)
            self._members.neighbours.together(plan.members, there, trio.current_time())

    def _after_adopted(self) -> None:
        self._exchanging.release()
        assert self._state is not None
        self._follower.stand(self._state.tip)
        self._follower.poke()
        assert self._work is not None
        self._start(self._work.moving.write)
        self._start(self._given.sweep)
        self._look_again()

    def _look_again(self) -> None:
        """The round goes by another parent now: what was early may be in time."""
        assert self._state is not None
        self._incoming.look_again(self._state)
        self._members_changed()
        self._certified([])
