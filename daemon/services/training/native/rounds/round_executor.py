"""What takes time in a round and reports back as an event: making an offer, adopting, fetching,
merging.

Nothing here decides what is next.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec.structs import replace

from daemon.services.training.native.exchange.data_plane import DataPlane, fingerprint_of
from daemon.services.training.native.rounds.round_log import RoundLog
from daemon.services.training.native.state.downloads import Downloads
from daemon.services.training.native.state.fork_choice import ForkChoice
from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.state.state_sync import StateSync
from daemon.services.training.native.training.trainer_link import TrainerLink
from daemon.swarm.follower import Follower
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificates.certificate import OpenCertificate, Tip
from protocol.certificates.merge import merge_parents, merge_round
from protocol.chain.account_binding import with_binding
from protocol.contribution.ledger import NOTHING, Offer
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.messages.offer import MAX_DRAWN, MAX_ROUNDS, Binding, Ready, TaskReady, Trajectory
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.ports.trainer import Trainer
from protocol.round import events as e
from protocol.run.manifest import Manifest


class RoundExecutor:
    """One node's work in a run, from when its state_store has taken up what is on disk.

    Every method but `ready` may take minutes.
    """

    def __init__(
        self,
        *,
        me: PeerId,
        manifest: Manifest,
        network: Network,
        trainer: Trainer,
        lineage: Lineage,
        members: Members,
        course: ForkChoice,
        downloads: Downloads,
        follower: Follower,
        exchanging: DataPlane,
        state_store: StateStore,
        offload: Offload,
        logbook: RoundLog,
        leaves: dict[Digest, list[Digest]],
        binding: Binding | None,
        emit: Callable[[e.Event], None],
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.training = TrainerLink(trainer, state_store, manifest, me, record)
        self.moving = StateSync(
            lineage=lineage,
            follower=follower,
            state_store=state_store,
            training=self.training,
            offload=offload,
            logbook=logbook,
            leaves=leaves,
            record=record,
        )
        self._downloads, self._lineage = downloads, lineage
        self._network, self._neighbours, self._tasks, self._binding = (
            network,
            members.neighbours,
            members.tasks,
            binding,
        )
        self._course, self._exchanging, self._state_store, self._emit = (
            course,
            exchanging,
            state_store,
            emit,
        )

    async def make_offer(self) -> None:
        async with self.training.lock:
            tip, ledger = self._state_store.tip, self._state_store.ledger
            offer, loss = await self.training.make_offer()
            ready = self.ready(tip.hash, tip.number + 1, offer, loss)
            trajectory = Trajectory(
                drawn=min(ledger.drawn, MAX_DRAWN), rounds=min(max(ledger.rounds, 1), MAX_ROUNDS)
            )
            self._emit(e.OfferMade(ready=replace(ready, trajectory=trajectory), offer=offer))

    async def train_on(self) -> None:
        await self.training.go_on()

    def ready(self, parent: Digest, number: int, offer: Offer, loss: float | None) -> Ready:
        ready = TaskReady(
            task=self._tasks.name,
            parent=parent,
            view=0,
            number=number,
            seq=offer.seq,
            samples=offer.weight,
            contribution=offer.digest,
            loss=loss,
            fingerprint=fingerprint_of(self._network.endpoint),
            uplink_bps=self._exchanging.uplink_bps,
            downlink_bps=self._exchanging.downlink_bps,
            coordinate=self._neighbours.coordinate,
            observations=self._neighbours.sights(parent),
        )
        return ready if self._binding is None else with_binding(ready, self._binding)

    async def adopt(self, certificate: OpenCertificate, *, downloaded: bool) -> None:
        """Make the state of a certificate the anchor; `StateUnavailable` where the lineage has no place
        for the certificate.
        """
        arrived = self._downloads.take(certificate.hash) if downloaded else None
        if why := self._misplaced(certificate, downloaded):
            self._emit(e.StateUnavailable(certificate=certificate.hash, reason=why))
            return
        assert arrived is not None or not downloaded, "the machine adopts what it was told is here"
        moved = await self.moving.adopt(
            certificate, self._exchanging.encoding_losses(certificate), arrived
        )
        self._downloads.moved()
        self._course.moved(downloaded=downloaded)
        self._emit(moved)

    def _misplaced(self, certificate: OpenCertificate, downloaded: bool) -> str:
        """Why a certificate is not in the lineage and cannot be added, or nothing.

        Strangers' certificates may have pushed it out while its state came, or a parent of it.
        """
        if self._lineage.step(certificate.hash) is None:
            try:
                # A downloaded state belongs to a certificate that was verified when it came.
                self._lineage.add(certificate.raw, trusted=downloaded)
            except PeerFault as fault:
                return f"certificate {certificate.outcome.number} does not verify: {fault}"
        return (
            f"a parent of certificate {certificate.outcome.number} is not known any more"
            if self._lineage.step(certificate.hash) is None
            else ""
        )

    async def fetch(self, certificate: OpenCertificate) -> None:
        """Have a state downloaded, beside everything else."""
        made = self._lineage.step(certificate.hash)
        if made is None:
            return
        lost = await self._downloads.fetch(made)
        if lost:
            self._course.nobody_gave(certificate.hash, trio.current_time())
            self._emit(e.StateUnavailable(certificate=certificate.hash, reason=lost))

    async def average(self, other: Tip) -> None:
        """The other branch's state is here: average it with ours."""
        arrived, ours = self._downloads.look(other.hash), self._state_store.tip
        assert arrived is not None, "the machine averages what it was told is here"
        state = await self.moving.merge(other, arrived)
        parents = merge_parents(ours.hash, other.hash)
        ready = self.ready(merge_round(parents), max(ours.number, other.number) + 1, NOTHING, None)
        self._emit(e.MergePrepared(other=other, state=state, ready=ready))

    def give_up(self, certificate: Digest, *, merging: bool, held_s: float) -> None:
        """A state does not come, or not on: this node does without it for a while."""
        now = trio.current_time()
        if merging:
            self._course.merge_failed(now)
        else:
            self._course.nobody_gave(certificate, now, held_s)

    async def leave(self) -> None:
        """What was trained goes into the ledger, and everything to disk."""
        await self.training.leave()
        await self.moving.write()
