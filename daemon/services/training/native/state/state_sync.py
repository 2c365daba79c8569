"""Moves a node to its next anchor, and writes the anchor to disk.

The spare buffers first hold the new state, computed here or downloaded (`downloads.py`). The
trainer's lock covers the swap of the anchor, the settlement of the ledger and the start of
training, so no offer mixes the old anchor with the new one.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.services.training.native.engine_context import ALONE_STATE_S
from daemon.services.training.native.exchange.result_buffer import OwnSums
from daemon.services.training.native.rounds.round_log import RoundLog
from daemon.services.training.native.state.downloads import Arrived
from daemon.services.training.native.state.held_store import HeldStore
from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.training.trainer_link import TrainerLink
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.chain_sync import pack_record
from daemon.swarm.follower import Follower
from daemon.swarm.lineage import Lineage
from protocol.averaging.replay import State, is_merge
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.merge import merge_parents
from protocol.certificates.result_keepers import keeper_voted, keepers
from protocol.certificates.tip import Tip
from protocol.digest import Digest, merkle_root
from protocol.journal import JournalEvent, Warned
from protocol.membership.patience import is_full
from protocol.ports.offload import Offload
from protocol.round.events import CertificateAdopted
from protocol.rules.versions import RULES_4


class StateSync:
    """Moves one node along its lineage."""

    def __init__(
        self,
        *,
        lineage: Lineage,
        follower: Follower,
        state_store: StateStore,
        trainer_link: TrainerLink,
        offload: Offload,
        round_log: RoundLog,
        record: Callable[[JournalEvent], None],
        held: HeldStore | None,
    ) -> None:
        """`held` has the times of adoption of a run of rules 4; None before."""
        self.adopted_at = trio.current_time()
        # The records of the lineage that are not on disk yet, as (number, record).
        self.unwritten: list[tuple[int, bytes]] = []
        self._lineage, self._follower = lineage, follower
        self._state_store = state_store
        self._trainer_link = trainer_link
        self._offload = offload
        self._round_log = round_log
        self._record, self._held = record, held
        # Certificates whose results no voter made durable.
        self._unkept: list[OpenCertificate] = []
        self._writing = trio.Lock()

    async def adopt(
        self,
        certificate: OpenCertificate,
        sums: OwnSums,
        download: Arrived | None = None,
    ) -> CertificateAdopted:
        """Adopt the certificate whose state is in the spare buffers, or in `download`.

        `sums` says what this node's own sums for it left.
        """
        made, state_store = self._step_of(certificate), self._state_store
        began = trio.current_time()
        async with self._trainer_link.lock:
            if download is None:
                # A trainer that never stops has trained on since the certificate came.
                since = began if self._trainer_link.overlaps else trio.current_time()
                return await self._move(made.tip, sums, since)
            assert download.leaves is not None
            await state_store.anchor.receive(download.value, download.momentum, download.leaves)
            state_store.full_states.needed |= not download.replayed
            now = trio.current_time()
            age, heard = self._follower.ages.get(certificate.hash, (0.0, now))
            # A node behind another certificate is in no round: it trains until the state of that
            # certificate has arrived.
            outdated = self._lineage.preferred_descendant(made.tip) is not None
            return await self._move(made.tip, OwnSums(), now if outdated else heard - age)

    def _step_of(self, certificate: OpenCertificate) -> LineageEntry:
        made = self._lineage.entry(certificate.hash)
        assert made is not None, "the machine moves only to certificates of the lineage"
        return made

    async def merge(self, other: Tip, download: Arrived) -> Digest:
        """Average another branch's state into the spare buffers; return the digest.

        The merged state is durable on return, before this node can vote for it.
        """
        async with self._trainer_link.lock:
            ours = self._state_store.tip
            if self._state_store.manifest.rules >= RULES_4:
                return await self._absorb(ours, other, download)
            first = merge_parents(ours.hash, other.hash)[0] == ours.hash
            weights = self._lineage.weights(*((ours, other) if first else (other, ours)))
            state = (download.value, download.momentum)
            anchor, number = self._state_store.anchor, max(ours.number, other.number) + 1
            digest = await anchor.average_spare(
                state, weights, ours_first=first, offload=self._offload
            )
            await self._state_store.results.persist_state(number, digest, anchor.spare)
            return digest

    @property
    def _what_prefers(self) -> str:
        rules = self._state_store.manifest.rules
        return "more certified samples" if rules < RULES_4 else "more voters"

    async def _absorb(self, ours: Tip, other: Tip, download: Arrived) -> Digest:
        """Compute the merge of two branches by standing (rules 4), as `merge` does."""
        preferred = self._lineage.forks.sides(ours, other).preferred
        leads = preferred.hash == ours.hash
        share = self._lineage.forks.merge_share(preferred, other if leads else ours)
        anchor, number = self._state_store.anchor, max(ours.number, other.number) + 1
        digest = await anchor.absorb_spare(
            (download.value, download.momentum), share, ours_first=leads, offload=self._offload
        )
        await self._state_store.results.persist_state(number, digest, anchor.spare)
        return digest

    async def _move(self, tip: Tip, sums: OwnSums, since: float) -> CertificateAdopted:
        """Move to a tip whose state is in the spare buffers.

        `since` is when the other members began to train from the tip's anchor.
        """
        state_store, overlaps = self._state_store, self._trainer_link.overlaps
        age_s = trio.current_time() - since
        path = self._lineage.path(state_store.tip, tip)
        above = state_store.tip.number
        if not self._lineage.descends(tip, state_store.tip):
            above = 0
            where = tip.number - len(path)
            self._record(
                Warned(
                    code="FORK",
                    message=f"Following another branch after certificate {where}: it has"
                    f" {self._what_prefers}.",
                )
            )
            if self._state_store.manifest.rules >= RULES_4:
                lost = self._lineage.path(tip, state_store.tip)
                state_store.ledger_store.report_left(lost, "more voters stand on the other branch")
        joining = state_store.ledger_store.joins(state_store.tip, path)
        await self._trainer_link.end_trajectory(joining=joining)
        had_offer = state_store.ledger.pending > 0
        await state_store.move_to(tip, path, sums.losses)
        self.unwritten.extend(_records(path, above))
        self._note_keepers(path)
        state_store.full_states.needed |= any(is_merge(certificate) for certificate in path)
        self.adopted_at = since if overlaps else trio.current_time() - age_s
        steps = [
            made
            for certificate in path
            if (made := self._lineage.entry(certificate.hash)) is not None
        ]
        self._round_log.adopted(
            steps,
            merkle_root(state_store.anchor.leaves[tip.hash]).hex(),
            had_offer,
            sums.kept,
        )
        await self._trainer_link.begin_trajectory()
        if overlaps:
            # How long this node took to settle must not move the end of its round away from the
            # end of the others' rounds.
            age_s = trio.current_time() - since
        votes = path[-1].votes if path else ()
        return CertificateAdopted(tip=tip, age_s=age_s, full=self._is_any_full(path), votes=votes)

    def _note_keepers(self, path: list[OpenCertificate]) -> None:
        """Note who keeps the results of each certificate of `path`."""
        for one in path:
            if is_merge(one):
                # Every member made a merged state durable before it voted.
                continue
            if not keeper_voted(one.voters, one.outcome, one.plan, one.inclusion):
                self._unkept.append(one)
                continue
            kept_by = frozenset(keepers(one.outcome, one.plan, one.inclusion))
            if self._state_store.me not in kept_by:
                self._state_store.full_states.kept_elsewhere(one.outcome.number, kept_by)

    def _is_any_full(self, path: list[OpenCertificate]) -> bool:
        """Return whether a quorum of its parent's voters signed one of these certificates."""
        if self._state_store.manifest.rules < RULES_4 or any(map(is_merge, path)):
            return True
        return any(is_full(each.signers, each.voters) for each in self._lineage.forks.signers(path))

    async def recover(self, tip: Tip, state: State) -> CertificateAdopted:
        """Move to the owner's recovery, with the state of the certificate that the owner named."""
        async with self._trainer_link.lock:
            before = self._state_store.tip
            await self._trainer_link.end_trajectory(joining=True)
            self._state_store.ledger_store.report_left(
                self._lineage.path(tip, before),
                f"the run's owner took the run back to certificate {tip.number}",
            )
            await self._state_store.recover(tip, state)
            self.unwritten.clear()
            self._unkept.clear()
            self.adopted_at = trio.current_time()
            self._record(
                Warned(
                    code="RECOVERY",
                    message=f"The run's owner goes on from certificate {tip.number}. This node left"
                    f" certificate {before.number}; its state stays on disk for a week.",
                )
            )
            await self._trainer_link.begin_trajectory()
            return CertificateAdopted(tip=tip)

    async def write(self, *, full: bool = False) -> None:
        """Write certificates, and the full state if it is due; `full` writes it in any case."""
        async with self._writing:
            results = self._state_store.results
            unkept, self._unkept = self._unkept, []
            for certificate in unkept:
                if (mean := await results.mean_of(certificate)) is not None:
                    outcome = certificate.outcome
                    await results.persist(outcome.number, outcome.state, mean)
            records, self.unwritten = self.unwritten, []
            self.unwritten[:0] = await self._state_store.write(
                records, trio.current_time, full=full
            )
            if self._held is not None:
                await self._held.write()

    async def write_if_due(self) -> None:
        """Write the full state of a node whose rounds end without a certificate, if it is due."""
        now = trio.current_time()
        alone = now - self.adopted_at > ALONE_STATE_S
        if self._state_store.is_full_state_due(now, alone=alone):
            await self.write(full=True)


def _records(path: list[OpenCertificate], above: int) -> list[tuple[int, bytes]]:
    """Return a record for each certificate of a path; a merge's record has the other branch too.

    Every record has a number above `above`, the number of the old tip: the disk truncates a chain
    at a lower number, and would lose the way to that tip. A merge on the other branch may have a
    lower number; it goes into the record of the merge with this node's branch.
    """
    records: list[tuple[int, bytes]] = []
    waiting: list[bytes] = []
    meets = any(len(certificate.outcome.parents) == 2 for certificate in path)
    for certificate in path:
        waiting.append(certificate.raw)
        if certificate.outcome.number > above and (
            not meets or len(certificate.outcome.parents) == 2
        ):
            records.append((certificate.outcome.number, pack_record(waiting)))
            waiting, meets = (
                [],
                meets
                and any(len(c.outcome.parents) == 2 for c in path[path.index(certificate) + 1 :]),
            )
    return records
