"""Composes the parts of the native engine and runs them.

The parts that talk with peers exist from the start, because protocols are registered before the
network starts. The parts that work on the model follow once the trainer has described the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from daemon.services.training.native.audit.auditor import Auditor
from daemon.services.training.native.audit.contributions import Contributions
from daemon.services.training.native.audit.fraud_proofs import FraudProofs
from daemon.services.training.native.beacon_builder import BeaconBuilder
from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.exchange.data_plane import DataPlane
from daemon.services.training.native.parts import ModelParts, PeerParts, resume_model
from daemon.services.training.native.rounds.event_queue import EventQueue, ignore_event
from daemon.services.training.native.rounds.message_translator import MessageTranslator
from daemon.services.training.native.rounds.round_log import RoundLog
from daemon.services.training.native.rounds.round_loop import RoundLoop
from daemon.services.training.native.stage import Stage, Starting
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.chain_sync import ChainReply, serve_chain
from daemon.swarm.follower import Follower, FollowerHooks
from daemon.swarm.initial_transfer import InitialServer, serve_initial
from daemon.swarm.lineage import Lineage
from daemon.swarm.manifest_exchange import serve_manifest
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.owner_exchange import OwnerExchange
from daemon.swarm.result_transfer import HeldMean, ResultServer, serve_results
from daemon.swarm.state_transfer import StateServer, serve_state
from daemon.swarm.task_agreement import serve_task
from daemon.system.trio_types import TaskStatus
from protocol.averaging.vector_layout import chunk_count
from protocol.codec import codec_named
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import TrainingHeld
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon, with_score
from protocol.messages.envelope import AnyMessage, sign
from protocol.messages.membership import Leave
from protocol.messages.offer import Ready
from protocol.ports.trainer import Trainer
from protocol.round import events as e
from protocol.round.state import RoundState
from protocol.rules.versions import RULES_4

# The time between checks of whether the node can accept a message that waits.
DELIVERY_POLL_S = 0.05
# The time between looks for a new recovery of the run's owner.
RECOVERY_POLL_S = 1.0


class NativeEngine:
    """A node's part in a run of `engine = "native"`. Implements `Engine`."""

    def __init__(
        self,
        *,
        context: EngineContext,
        ports: NodePorts,
        trainer: Trainer,
        name: str,
        serial: Callable[[], int],
        exclusion_reason: Callable[[PeerId], str] = lambda _: "",
        on_event: Callable[[e.Event], None] = ignore_event,
    ) -> None:
        """Register the node's protocols on a network that has not started.

        Args:
            name: The node's name in its beacons.
            serial: Returns a growing number for beacons, across restarts too.
            exclusion_reason: Returns why a peer may not be in this node's plans; "" if it may.
            on_event: Receives each event before the round machine does.
        """
        self._context, self._ports, self._trainer = context, ports, trainer
        self._queue = EventQueue(on_event)
        self._finish = trio.Event()
        # Whether a person has paused training, and the link to the trainer once there is one.
        self._held = False
        self._model: ModelParts | None = None
        self._stage: Stage = Starting()
        self._round_log = RoundLog(context.me, ports.record, context.manifest)
        self._beacons = BeaconBuilder(
            name=name,
            run=context.run,
            network=ports.network,
            trainer=trainer,
            disk=ports.disk,
            serial=serial,
        )
        self.owner_records = (
            context.owner_records
            if context.owner_records is not None
            else OwnerRecords(context.run, context.manifest.owner)
        )
        # The version of the owner's records whose recoveries the lineage knows.
        self._noted_version = -1
        self.peers = self._peer_parts(
            lambda peer: exclusion_reason(peer) or self.owner_records.reason_against(peer)
        )
        network = ports.network
        self._owner_exchange = (
            OwnerExchange(network, context.run, self.owner_records, ports.refuse)
            if context.manifest.owner and context.manifest.rules >= RULES_4
            else None
        )
        serve_chain(network, context.run, self._answer_chain)
        serve_manifest(network, context.signed, ports.refuse, ports.record)
        serve_task(network, lambda: self.peers.members.tasks.ours)
        serve_state(network, self.peers.state_server)
        serve_results(network, ResultServer(self._held_mean))
        if context.initial is not None and context.manifest.initial:
            serve_initial(network, InitialServer(context.run, context.initial, ports.offload))

    @property
    def state(self) -> RoundState | None:
        """The state of this node's round; None until the node has loaded its model."""
        return self._stage.state

    @property
    def state_store(self) -> StateStore | None:
        """The node's durable state; None until the node has loaded it."""
        return self._stage.state_store

    @property
    def waiting(self) -> int:
        """The number of events that wait for the round machine."""
        return len(self._queue)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled or finished; started when training has begun."""
        context, peers = self._context, self.peers
        async with trio.open_nursery() as nursery:
            await nursery.start(peers.messenger.run)
            await nursery.start(peers.data_plane.sender.run)
            if self._owner_exchange is not None:
                await nursery.start(self._owner_exchange.run)
                self._note_recoveries()
            if context.manifest.rules >= RULES_4:
                nursery.start_soon(self._watch_recoveries)
            info = await self._trainer.describe()
            self._stage = Starting(info)
            peers.members.tasks.begin(info.task)
            peers.members.compare_again()
            peers.lineage.chunks = chunk_count(info.parameters)
            model, origin = await resume_model(
                context=context,
                ports=self._ports,
                peers=peers,
                info=info,
                trainer=self._trainer,
                round_log=self._round_log,
                emit=self._queue.put,
            )
            rounds = RoundLoop(
                context=context,
                ports=self._ports,
                peers=peers,
                model=model,
                info=info,
                round_log=self._round_log,
                queue=self._queue,
                nursery=nursery,
            )
            self._stage = rounds
            peers.follower.adopt(model.state_store.tip)
            self._round_log.began(rounds.state, origin, trio.current_time())
            self._model = model
            if self._held:
                model.evaluator.held = model.work_auditor.held = True
                await model.trainer_link.hold()
            await model.trainer_link.begin()
            nursery.start_soon(model.trainer_link.attend)
            await nursery.start(peers.follower.run)
            nursery.start_soon(rounds.watch_steps, self._trainer)
            nursery.start_soon(rounds.watch_sleep)
            # Certificates may have come while the trainer was starting.
            rounds.lineage_changed()
            task_status.started()
            await rounds.run(self._finish)
            nursery.cancel_scope.cancel()

    async def _watch_recoveries(self) -> None:
        """Follow what the run's owner signs while the run goes on."""
        while True:
            await trio.sleep(RECOVERY_POLL_S)
            if self.owner_records.version != self._noted_version:
                self._note_recoveries()
            followed = await self._ports.offload(self._context.followed)
            if followed != self.peers.lineage.followed:
                self.peers.lineage.followed = followed
                self._stage.lineage_changed()

    def _note_recoveries(self) -> None:
        self._noted_version = self.owner_records.version
        for recovery in self.owner_records.recoveries:
            self.peers.lineage.recover(recovery)
        self._stage.lineage_changed()

    async def hold(self, held: bool) -> None:
        """Pause training, or train again, and write the state to disk before a pause."""
        changed, self._held = held != self._held, held
        if changed:
            self._ports.record(TrainingHeld(held=held))
        if self._model is None:
            return
        self._model.evaluator.held = self._model.work_auditor.held = held
        if held:
            await self._model.trainer_link.hold()
            await self._model.state_sync.write(full=True)
        else:
            await self._model.trainer_link.release()

    def finish(self) -> None:
        """Make what was learned durable and return from `run`.

        A voter tells the other members that it leaves, so that they need not wait for its vote.
        """
        self._leave()
        self._finish.set()
        self._queue.wake()

    def _leave(self) -> None:
        context, state = self._context, self._stage.state
        if state is None or state.record is None or context.me not in state.record.voters:
            return
        leave = Leave(tip=state.tip.hash, serial=self._beacons.next_serial())
        signed = sign(context.signer, context.run, leave)
        for peer in sorted((state.live | {*state.record.voters}) - {context.me}):
            self.peers.messenger.send(peer, signed)

    def end_training(self) -> None:
        """End the current training now. A benchmark drives its rounds with this."""
        self._queue.put(e.TrainingFinished())

    def extend_training(self, by_s: float) -> None:
        """End the current training later. A simulated fault does this; nothing else does."""
        if isinstance(self._stage, RoundLoop):
            self._stage.extend_training(by_s)

    def speak(self, opinions: Callable[[], Mapping[PeerId, bool]]) -> None:
        """Say this of members from now on. A simulated liar does this; nothing else does."""
        if isinstance(self._stage, RoundLoop):
            self._stage.opinions = opinions

    # ---------------------------------------------------------------- composing

    def _peer_parts(self, exclusion_reason: Callable[[PeerId], str]) -> PeerParts:
        context, ports = self._context, self._ports
        lineage = Lineage(context.run, context.manifest)
        lineage.require(context.invitation.required)
        members = Members(context.me, ports.record, ports.network.admit)
        lineage.refuses_task = members.tasks.refusal
        messenger = Messenger(ports.network, context.run, self._deliver, ports.refuse)
        fraud_proofs = FraudProofs(
            me=context.me,
            signed=context.signed,
            ports=ports,
            lineage=lineage,
            parameters=self._parameters,
        )
        return PeerParts(
            lineage=lineage,
            members=members,
            messenger=messenger,
            follower=Follower(
                network=ports.network,
                run=context.run,
                signer=context.signer,
                lineage=lineage,
                members=members,
                refuse=ports.refuse,
                hooks=FollowerHooks(
                    on_entries=self._lineage_grew,
                    on_members=self._members_changed,
                    on_gone=lambda peer: self._queue.put(e.PeerLost(peer=peer)),
                    beacon=self._beacon,
                    send=messenger.send,
                ),
            ),
            translator=MessageTranslator(
                context.run,
                lineage.plans,
                self._queue.put,
                ports.refuse,
                fraud_proofs.guilty,
                lambda peer: exclusion_reason(peer) or fraud_proofs.distrusted(peer),
                members.tasks,
            ),
            data_plane=DataPlane(
                network=ports.network,
                run=context.run,
                signer=context.signer,
                codec=context.manifest.codec,
                members=members,
                offload=ports.offload,
                emit=self._queue.put,
                refuse=ports.refuse,
            ),
            auditor=Auditor(
                context=context, ports=ports, fraud_proofs=fraud_proofs, parameters=self._parameters
            ),
            contributions=Contributions(ports, codec_named(context.manifest.codec)),
            fraud_proofs=fraud_proofs,
            state_server=StateServer(ports.disk, self._leaves, self._parameters, self._read_state),
            owner_records=self.owner_records,
        )

    # ---------------------------------------------------------------- called by the parts

    def _parameters(self) -> int:
        """The size of the model; 0 until the trainer has described it."""
        info = self._stage.info
        return info.parameters if info is not None else 0

    async def _deliver(self, signed: Signed, message: AnyMessage) -> None:
        """Receive a verified message from a peer, which waits until this node can accept it."""
        while self._queue.full or not isinstance(stage := self._stage, RoundLoop):
            await trio.sleep(DELIVERY_POLL_S)
        if isinstance(message, Ready):
            self.peers.members.took_part(signed.peer, trio.current_time())
        if not self.peers.follower.receive(signed, message):
            stage.receive(signed, message)

    def _lineage_grew(self, entries: list[LineageEntry]) -> None:
        for entry in entries:
            self.peers.data_plane.certified(entry.certificate.plan.digest)
        self._stage.lineage_changed()

    def _members_changed(self) -> None:
        self._stage.members_changed()

    def _leaves(self, tip: Digest) -> list[Digest] | None:
        return self._stage.leaves(tip)

    def _read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        return self._stage.read_state(tip, offset, size)

    async def _held_mean(self, certificate: Digest) -> HeldMean | None:
        store = self._stage.state_store
        return await store.results.held(certificate) if store is not None else None

    def _beacon(self) -> Beacon:
        stage, tasks = self._stage, self.peers.members.tasks
        beacon = self._beacons.beacon(stage.state, stage.info, tasks.name, stage.arriving)
        return with_score(beacon, stage.score)

    async def _answer_chain(self, first: int, limit: int) -> tuple[ChainReply, list[bytes]]:
        stage = self._stage
        return await self._beacons.chain(stage.state, stage.state_sync, first, limit)
