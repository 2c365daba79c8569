"""Drives the round machine with one event after the other.

The loop steps the machine and passes the machine's actions to the dispatcher. `protocol/round`
makes all decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio
from msgspec.structs import replace

from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.parts import ModelParts, PeerParts
from daemon.services.training.native.rounds.action_dispatcher import ActionDispatcher
from daemon.services.training.native.rounds.admission_watch import AdmissionWatch
from daemon.services.training.native.rounds.event_queue import EventQueue
from daemon.services.training.native.rounds.history_watch import HistoryWatch
from daemon.services.training.native.rounds.quorum_log import QuorumLog
from daemon.services.training.native.rounds.ready_builder import OfferStanding, ReadyBuilder
from daemon.services.training.native.rounds.round_executor import RoundExecutor
from daemon.services.training.native.rounds.round_log import RoundLog
from daemon.services.training.native.rounds.voters_watch import (
    AWAY_GRACES,
    LOOKS_PER_ABSENCE,
    VotersWatch,
)
from daemon.swarm.beacon_schedule import stranger_timeout_s
from daemon.swarm.lineage import Lineage
from protocol.averaging.vector_layout import chunk_count
from protocol.certificates.certificate import OpenCertificate, certificate_hash
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.role import is_trusted
from protocol.membership.statements import statements_to_make
from protocol.messages.base import Message, Signed
from protocol.messages.beacon import HeldOutScore
from protocol.messages.envelope import payload_of
from protocol.ports.disk import DiskFull
from protocol.ports.trainer import TaskInfo, Trainer
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.quorum import patience_of
from protocol.round.state import Notices, RoundState, RunContext
from protocol.rules.versions import RULES_4

# The phases of a node's own rounds. During them the node may also download a state that it lacks.
FETCHING_PHASES = frozenset(
    {
        Phase.TRAIN,
        Phase.OFFER,
        Phase.READY,
        Phase.SCATTER,
        Phase.REDUCE,
        Phase.VOTE,
        Phase.WATCH,
    }
)
# The time between checks of whether the trainer has done a round's steps.
STEPS_POLL_S = 0.05
# Once a round's steps are done, the trainer stops and begins the next round in this time.
STEPS_DONE_S = 0.2


class RoundLoop:
    """One node's rounds, once its state is loaded. The second stage of an engine's life."""

    def __init__(
        self,
        *,
        context: EngineContext,
        ports: NodePorts,
        peers: PeerParts,
        model: ModelParts,
        info: TaskInfo,
        round_log: RoundLog,
        queue: EventQueue,
        nursery: trio.Nursery,
    ) -> None:
        """Tasks run in `nursery`; `queue` may hold events from before the load."""
        self.info = info
        self.state_store = model.state_store
        self.state_sync = model.state_sync
        self._manifest, self._peers, self._model = context.manifest, peers, model
        self._round_log, self._queue, self._run = round_log, queue, context.run
        self._me = context.me
        self._unreachable = ports.network.unreachable
        self._quorum_log = QuorumLog(model.state_store.tip.number, ports.record)
        run_context = RunContext(
            run=context.run,
            me=context.me,
            manifest=context.manifest,
            chunks=chunk_count(info.parameters),
            returning=model.state_store.returning,
        )
        self._state = begin(
            run_context,
            model.state_store.tip,
            trio.current_time(),
            view_records=model.state_store.views.records,
            notices=Notices(parent_votes=_votes_for(model.state_store.tip, peers.lineage)),
        )
        self._invitation = context.invitation.proof
        # The version of the owner's records that the machine knows, and the peers that the tip's
        # record holds as revoked; None before the first.
        self._records_seen: tuple[int, tuple[PeerId, ...]] | None = None
        self._admission = AdmissionWatch(
            me=context.me,
            run=context.run,
            manifest=context.manifest,
            proof=self._invitation,
            record=ports.record,
        )
        self._history_watch = HistoryWatch(peers.lineage, ports.record)
        self._voters_watch = VotersWatch(
            context.me, peers.members, lambda: queue.put(e.VotersReturned())
        )
        # What this node's audits of work say of other members: for each, whether it is for it.
        self.opinions: Callable[[], Mapping[PeerId, bool]] = model.work_auditor.opinions
        ready_builder = ReadyBuilder(
            ports.network,
            peers.members,
            peers.data_plane,
            context.binding,
            self._standing if context.manifest.rules >= RULES_4 else None,
        )
        self._executor = RoundExecutor(
            model=model,
            lineage=peers.lineage,
            data_plane=peers.data_plane,
            ready_builder=ready_builder,
            emit=queue.put,
        )
        self._dispatcher = ActionDispatcher(
            context=context,
            ports=ports,
            peers=peers,
            state_store=model.state_store,
            work_auditor=model.work_auditor,
            executor=self._executor,
            nursery=nursery,
            on_own_message=self._receive_own,
        )

    @property
    def state(self) -> RoundState:
        """The state of this node's round."""
        return self._state

    @property
    def score(self) -> HeldOutScore | None:
        """This node's newest score of an anchor."""
        return self._model.evaluator.score

    # ---------------------------------------------------------------- the loop

    async def run(self, finish: trio.Event) -> None:
        """Step the machine until `finish` is set, then make everything durable."""
        while not finish.is_set():
            event = await self._queue.next(self._state.deadline)
            if event is not None:
                await self._step(event)
            if self._queue.ready:
                # Other tasks get their turn here: with an event ready, `next` does not wait.
                await trio.lowlevel.checkpoint()
        self._peers.data_plane.abandon()
        await self._executor.leave()

    async def watch_sleep(self) -> None:
        """Notice after a sleep of this process that no grace has passed, in runs of rules 4."""
        while (patience := patience_of(self._state)) is not None:
            self._notice_sleep()
            await trio.sleep(AWAY_GRACES * patience.grace_s / LOOKS_PER_ABSENCE)

    def _notice_sleep(self) -> None:
        """Let the grace count anew if this process slept, before anything is decided."""
        patience, now = patience_of(self._state), trio.current_time()
        if patience is not None and self._voters_watch.slept(patience.grace_s, now):
            self._state, _ = step(self._state, e.VotersReturned(), now)

    async def _step(self, event: e.Event) -> None:
        self._notice_sleep()
        before = self._state
        now = trio.current_time()
        if isinstance(event, e.DeadlinePassed) and before.phase is Phase.READY:
            training = self._peers.members.training_at(before.tip.hash)
            event = e.DeadlinePassed(training=training)
        self._state, actions = step(before, event, now)
        self._round_log.moved(before, self._state, now)
        self._quorum_log.moved(event, before, self._state, now)
        for action in actions:
            if not isinstance(action, a.PersistView):
                self._dispatcher.act(action)
            elif not await self._persist_view(action):
                break
        if isinstance(event, e.PeerLost):
            self._peers.data_plane.lost(event.peer)
        if isinstance(event, e.CertificateAdopted):
            if event.full:
                self._voters_watch.certified()
            if event.full and before.spare is not None:
                self._model.return_trial.took_part()
            self._note_attendance(before.target)
            self._after_adopted()
        elif before.parent != self._state.parent:
            self._parent_changed()
        elif self._state.merge_target not in (None, before.merge_target):
            # Both branches choose a leader as soon as the average is computed. Each would pass over
            # the other's leaders without this, and certify the merge by itself, again and again.
            self.members_changed()
        if before.phase is not self._state.phase:
            self._model.evaluator.look()
            if self._state.phase is Phase.TRAIN and self._state.tip.record is not None:
                # This node may have become patient since the last round.
                self.lineage_changed()
        if before.phase is not self._state.phase or (
            isinstance(event, e.StateBytesReceived) and self.arriving is not None
        ):
            self._peers.follower.poke()

    async def _persist_view(self, action: a.PersistView) -> bool:
        """Make a view durable while events wait in the queue. Returns whether that worked."""
        try:
            await self._model.state_store.views.persist(action.parent, action.view)
        except DiskFull as full:
            self._queue.put(e.ViewNotPersisted(reason=str(full)), first=True)
            return False
        return True

    def extend_training(self, by_s: float) -> None:
        """End the current training later. A simulated fault does this; nothing else does."""
        if self._state.phase is Phase.TRAIN:
            self._state = replace(self._state, deadline=self._state.deadline + by_s)
            self._queue.wake()

    async def watch_steps(self, trainer: Trainer) -> None:
        """End training when the trainer has done a round's steps, if the run counts steps."""
        wanted = self._manifest.round.steps
        while wanted:
            await trio.sleep(STEPS_POLL_S)
            if self._state.phase is Phase.TRAIN and trainer.progress().steps >= wanted:
                self._queue.put(e.TrainingFinished())
                await trio.sleep(STEPS_DONE_S)

    # ---------------------------------------------------------------- input

    def receive(self, signed: Signed, message: Message) -> None:
        """Receive a verified message from a peer."""
        self._peers.translator.translate(self._state, signed, message)

    def _receive_own(self, signed: Signed, message: Message) -> None:
        self._peers.translator.translate(self._state, signed, message, ours=True)

    def lineage_changed(self) -> None:
        """Follow the lineage to the certificate that it prefers now."""
        self._notice_sleep()
        state, now = self._state, trio.current_time()
        # The certificate that would name the state which this node computed.
        computed = certificate_hash(self._run, payload_of(state.spare)) if state.spare else None
        patience = patience_of(state)
        event = self._model.fork_choice.leads(state.tip, now, computed, patience)
        if event is not None:
            self._queue.put(event)
        elif state.phase in FETCHING_PHASES:
            wanted = self._model.fork_choice.seeks(state.tip, now, patience)
            trial = self._model.return_trial
            if wanted is not None:
                self._dispatcher.start(self._executor.fetch, wanted)
            elif (branch := trial.wants(state.tip, patience, now)) is not None:
                self._dispatcher.start(trial.run, branch, self.lineage_changed)

    def _standing(self) -> OfferStanding:
        """What this node's next offer says of members, and of itself."""
        record = self.state_store.tip.record
        assert record is not None, "every tip of rules 4 has a record"
        known = is_trusted(record, self._manifest, self._me)
        guilty = dict.fromkeys(self._peers.fraud_proofs.guilty, False)
        return OfferStanding(
            statements=statements_to_make(record, self._me, {**self.opinions(), **guilty}),
            invitation=b"" if known else self._invitation,
            data=self.state_store.ledger.data.named,
        )

    def _look_at_records(self) -> None:
        """Act on a change of the owner's records, or of the tip's membership record."""
        record, records = self._state.tip.record, self._peers.owner_records
        if record is None:
            return
        self._admission.look(record)
        records.used = {name: len(one.peers) for name, one in record.invitations.items()}
        if (seen := (records.version, record.revoked)) == self._records_seen:
            return
        self._records_seen = seen
        revocations = records.revocations_for(record.revoked)
        self._queue.put(e.OwnerRevoked(revocations=revocations))

    def members_changed(self) -> None:
        """Report the live members to the machine, and look at the lineage again."""
        self._look_at_records()
        state, members = self._state, self._peers.members
        now = trio.current_time()
        self._history_watch.look(now)
        if (patience := patience_of(state)) is not None and state.tip.record is not None:
            self._voters_watch.look(state.tip.record.voters, patience.grace_s, now)
        timeout_s = stranger_timeout_s(state.round_s, self._manifest.round.ready_s)
        live = members.awaited_at(state.tip.hash, now, timeout_s)
        other = state.merge.other if state.merge is not None else state.merge_target
        if other is not None:
            live |= members.awaited_at(other.hash, now, timeout_s)
        # While the average is computed, the other branch has no place in the state.
        averaging = state.phase is Phase.MERGE and other is None
        avoided = members.link_estimates.quarantined(live, now)
        unreachable = live & self._unreachable()
        known = (state.live, state.avoided, state.unreachable)
        if not averaging and (live, avoided, unreachable) != known:
            changed = e.LivePeersChanged(live=live, avoided=avoided, unreachable=unreachable)
            if changed not in self._queue:
                self._queue.put(changed)
        # A peer that serves the anchor of another branch may have come.
        self.lineage_changed()

    # ---------------------------------------------------------------- serving peers

    @property
    def arriving(self) -> Tip | None:
        """The tip whose state is about to be complete here, if there is one."""
        state = self._state
        if state.phase is not Phase.FETCH or state.target is None:
            return None
        eta_s = self._model.downloads.eta_s(state.target.hash)
        soon = eta_s <= self._manifest.round.ready_s
        return self._peers.lineage.tip(state.target.hash) if soon else None

    def leaves(self, tip: Digest) -> list[Digest] | None:
        """Return the leaves of the state of `tip`, if `tip` is one of the last few."""
        return self._model.state_store.anchor.leaves.get(tip)

    def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Return bytes of the state of `tip`, if it is in memory."""
        return self._model.state_store.anchor.read(tip, offset, size)

    # ---------------------------------------------------------------- after a certificate

    def _note_attendance(self, certificate: OpenCertificate | None) -> None:
        """Record which members of a plan with this node stayed to the end."""
        if (
            certificate is not None
            and self._me in certificate.plan.index
            and len(certificate.outcome.parents) == 1
        ):
            plan = certificate.plan
            present = frozenset(plan.members[i] for i in certificate.inclusion.present)
            self._peers.members.link_estimates.note_round(
                plan.members, present, trio.current_time()
            )

    def _after_adopted(self) -> None:
        self._records_seen = None
        self._peers.data_plane.release()
        self._peers.follower.adopt(self._state.tip)
        self._peers.follower.poke()
        self._dispatcher.start(self._model.state_sync.write)
        self._dispatcher.start(self._score, self._state.tip)
        self._dispatcher.start(self._peers.state_server.sweep)
        self._parent_changed()

    async def _score(self, tip: Tip) -> None:
        """Score the anchor of `tip`, and send the score out."""
        before = self.score
        await self._model.evaluator.adopted(tip)
        if self.score is not before:
            self._peers.follower.poke()

    def _parent_changed(self) -> None:
        """React to a new parent of the round: a message that was early may be in time now."""
        self._peers.translator.retry_early(self._state)
        self.members_changed()
        self.lineage_changed()


def _votes_for(tip: Tip, lineage: Lineage) -> tuple[tuple[PeerId, bytes], ...]:
    """Return the votes for a tip that this node's copy of its certificate has."""
    entry = lineage.entry(tip.hash)
    return entry.certificate.votes if entry is not None else ()
