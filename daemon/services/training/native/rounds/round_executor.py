"""Does the work of a round that takes time: offering, adopting, fetching, merging.

Each method reports its result as an event. No method decides what follows.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec.structs import replace

from daemon.services.training.native.exchange.data_plane import DataPlane
from daemon.services.training.native.parts import ModelParts
from daemon.services.training.native.rounds.ready_builder import ReadyBuilder
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.lineage import Lineage
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.merge import merge_parents, merge_round
from protocol.certificates.tip import Tip
from protocol.contribution.offer import NOTHING
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.messages.offer import MAX_DRAWN, MAX_ROUNDS, Trajectory
from protocol.round import events as e


class RoundExecutor:
    """One node's work in a run, once its state is loaded. Most methods may take minutes."""

    def __init__(
        self,
        *,
        model: ModelParts,
        lineage: Lineage,
        data_plane: DataPlane,
        ready_builder: ReadyBuilder,
        emit: Callable[[e.Event], None],
    ) -> None:
        self._state_store, self._downloads = model.state_store, model.downloads
        self._fork_choice, self._state_sync = model.fork_choice, model.state_sync
        self._trainer_link = model.trainer_link
        self._lineage, self._data_plane = lineage, data_plane
        self._ready_builder, self._emit = ready_builder, emit

    async def make_offer(self) -> None:
        """Collect the trainer's work, make a durable offer of it, and emit `OfferMade`."""
        async with self._trainer_link.lock:
            tip, ledger = self._state_store.tip, self._state_store.ledger
            offer, loss = await self._trainer_link.make_offer()
            ready = self._ready_builder.ready(tip.hash, tip.number + 1, offer, loss)
            trajectory = Trajectory(
                drawn=min(ledger.drawn, MAX_DRAWN), rounds=min(max(ledger.rounds, 1), MAX_ROUNDS)
            )
            self._emit(e.OfferMade(ready=replace(ready, trajectory=trajectory), offer=offer))
            await self._trainer_link.keep_inner()
        # A node that is alone has no certificates, and its work grows all the same.
        await self._state_sync.write_if_due()

    async def resume_training(self) -> None:
        """Train on from the local parameters."""
        await self._trainer_link.resume()

    async def adopt(self, certificate: OpenCertificate, downloaded: bool) -> None:
        """Make the state of a certificate the anchor, then emit `CertificateAdopted`.

        Where the lineage has no place for the certificate, emit `StateUnavailable` instead.
        """
        download = self._downloads.pop(certificate.hash) if downloaded else None
        if why := self._misplaced(certificate, downloaded):
            self._emit(e.StateUnavailable(certificate=certificate.hash, reason=why))
            return
        assert download is not None or not downloaded, (
            "the machine adopts only a state that has arrived"
        )
        sums = self._data_plane.own_sums(certificate)
        adopted = await self._state_sync.adopt(certificate, sums, download)
        if self._fork_choice.trusts(adopted.tip):
            adopted = replace(adopted, patient=True)
        self._downloads.moved()
        self._fork_choice.moved(downloaded=downloaded, tip=adopted.tip, now=trio.current_time())
        self._emit(adopted)

    def _misplaced(self, certificate: OpenCertificate, downloaded: bool) -> str:
        """Return why the lineage has no place for a certificate; "" if it has one.

        Strangers' certificates may have replaced it or its parent in the lineage meanwhile.
        """
        if self._lineage.entry(certificate.hash) is None:
            try:
                # A downloaded state belongs to a certificate that was verified on arrival.
                self._lineage.add(certificate.raw, trusted=downloaded)
            except PeerFault as fault:
                return f"certificate {certificate.outcome.number} does not verify: {fault}"
        return (
            f"the lineage no longer has a parent of certificate {certificate.outcome.number}"
            if self._lineage.entry(certificate.hash) is None
            else ""
        )

    async def fetch(self, certificate: OpenCertificate, *, ahead: bool = False) -> None:
        """Download the state of a certificate while other work goes on.

        `ahead` says that this node goes to the certificate, also from another branch.
        """
        entry = self._lineage.entry(certificate.hash)
        if entry is None:
            return
        why = await self._downloads.fetch(entry, ahead=ahead)
        if why:
            now, returning = trio.current_time(), self._state_store.returning
            if returning is None or not returning.awaited(certificate.hash, now):
                ours = self._lineage.descends(entry.tip, self._state_store.tip)
                self._fork_choice.state_unavailable(certificate.hash, now, ahead=ahead or ours)
            else:
                self._fork_choice.still_away(entry.tip, self._state_store.tip, now)
            self._emit(e.StateUnavailable(certificate=certificate.hash, reason=why))

    async def fetch_branch(self, other: Tip) -> None:
        """Download the state of another branch's tip."""
        entry = self._lineage.entry(other.hash)
        if entry is None:
            why = f"the lineage no longer has certificate {other.number}"
            self._emit(e.StateUnavailable(certificate=other.hash, reason=why))
        else:
            await self.fetch(entry.certificate)

    async def average(self, other: Tip) -> None:
        """Average another branch's state with this node's, then emit `MergePrepared`."""
        download, ours = self._downloads.get(other.hash), self._state_store.tip
        assert download is not None, "the machine averages only a state that has arrived"
        state = await self._state_sync.merge(other, download)
        parent = merge_round(merge_parents(ours.hash, other.hash))
        number = max(ours.number, other.number) + 1
        ready = self._ready_builder.ready(parent, number, NOTHING, None)
        preferred = (
            None if ours.record is None else self._lineage.forks.sides(ours, other).preferred
        )
        self._emit(e.MergePrepared(other=other, state=state, ready=ready, preferred=preferred))

    async def recover(self, tip: Tip) -> None:
        """Take the state of the owner's recovery, then emit `CertificateAdopted`.

        Where neither the disk nor a member has it, emit `RecoveryFailed`.
        """
        base = self._lineage.recoveries.base(tip.hash)
        state = await self._state_store.state_at(base) if base is not None else None
        entry = self._lineage.entry(base.hash) if base is not None else None
        why = "its certificate is not known here"
        if state is None and base is not None and entry is not None:
            # Members at the recovery serve the state under its name.
            held = LineageEntry(certificate=entry.certificate, tip=tip)
            why = await self._downloads.fetch(held) or "its state was replaced"
            download = self._downloads.pop(base.hash)
            state = (download.value, download.momentum) if download is not None else None
        if state is None:
            self._fork_choice.recovery_failed(trio.current_time())
            reason = f"no state of certificate {tip.number}, which the run's owner named: {why}"
            self._emit(e.RecoveryFailed(reason=reason))
            return
        adopted = await self._state_sync.recover(tip, state)
        self._downloads.moved()
        self._fork_choice.moved(downloaded=True, tip=tip, now=trio.current_time())
        self._emit(adopted)

    def give_up(self, certificate: Digest, merging: bool, missed_s: float) -> None:
        """Go on without a state that does not arrive, or arrives too slowly."""
        now = trio.current_time()
        if merging:
            self._fork_choice.merge_failed(now)
        else:
            self._fork_choice.state_unavailable(certificate, now, missed_s)

    async def leave(self) -> None:
        """Add the trainer's work to the ledger, and write everything to disk."""
        await self._trainer_link.leave()
        await self._state_sync.write(full=True)
