"""Audits contributors: measures whether their work was trained on the data that they name.

After a certificate, a voter draws a contributor (`protocol/audit`), fetches a part of its
contribution, and lets its own worker measure losses between steps. What it finds decides this
voter's statements, which travel in its next offers. Nothing in a round waits for an audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import trio

from daemon.services.training.native.audit.contributions import Contributions
from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.lineage import Lineage
from protocol.audit.budget import AuditBudget
from protocol.audit.comparison import Piece, compare
from protocol.audit.draw import audit_seed, draw_chunks, draw_contributors
from protocol.audit.history import AuditHistory
from protocol.audit.samples import (
    GROUP_SAMPLES,
    GROUPS,
    NAMED_SHARE,
    AuditGroups,
    DrawnStretch,
    audit_groups,
    drawn_stretch,
    named_total,
)
from protocol.audit.scope import audits_work
from protocol.audit.score import NO_WORK, score_of
from protocol.averaging.plan_sum import share_of
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.codec import codec_named
from protocol.errors import PeerFault, Unreachable
from protocol.evaluation.budget import TRAINED_COST
from protocol.identity import PeerId
from protocol.journal import WorkAudited
from protocol.membership.role import Role, is_trusted, role_of
from protocol.messages.offer import Ready, TrustReady, task_of
from protocol.ports.trainer import EvaluationFailed, TaskInfo, Trainer, TrainerLost

# The own and the other groups, scored with the reference and with the contribution.
AUDIT_SAMPLES = 2 * 2 * GROUPS * GROUP_SAMPLES
# The wait for the state of a certificate, whose mean the audit needs.
MEAN_POLL_S, MEAN_POLLS = 0.5, 20


class WorkAuditor:
    """One node's work audits, once its model is loaded."""

    def __init__(
        self,
        *,
        context: EngineContext,
        ports: NodePorts,
        trainer: Trainer,
        info: TaskInfo,
        state_store: StateStore,
        lineage: Lineage,
        contributions: Contributions,
    ) -> None:
        self.history = AuditHistory()
        self._signer, self._manifest = context.signer, context.manifest
        self._offload, self._record = ports.offload, ports.record
        self._refuse = ports.refuse
        self._trainer, self._info, self._state_store = trainer, info, state_store
        self._lineage, self._contributions = lineage, contributions
        self._codec = codec_named(context.manifest.codec)
        self._budget = AuditBudget(began_s=trio.current_time())
        self._busy = False
        # Whether training is paused: the device is left to other programs.
        self.held = False
        # The restarts of the worker in which the task could not score.
        self._failed_at = -1
        # Whether the run audits work.
        self.audits = audits_work(context.manifest)

    def opinions(self) -> Mapping[PeerId, bool]:
        """Return whether this node is for or against each peer that it has judged.

        A trusted peer needs no word in its favour, unless one against it is to be taken back.
        """
        record, me = self._state_store.tip.record, self._signer.peer
        if record is None:
            return {}
        said = dict(record.statements.get(me, ()))
        return {
            peer: favours
            for peer, favours in self.history.verdicts.items()
            if not favours or peer in said or not is_trusted(record, self._manifest, peer)
        }

    # ---------------------------------------------------------------- audits

    def wants(self, certificate: OpenCertificate) -> bool:
        """Whether this node audits a contributor of the certificate of its own round."""
        tip = self._state_store.tip
        if self.held or not self.audits or self._busy or self._failed_at == self._trainer.restarts:
            return False
        if tip.record is None or self._signer.peer not in tip.record.voters:
            return False
        mine = certificate.plan.index.get(self._signer.peer)
        if mine is not None and mine in certificate.contributors:
            self._budget = self._budget.offered(self._codec.size(self._info.parameters))
        rate = self._trainer.progress().samples_per_second
        return (
            certificate.outcome.parents == (tip.hash,)
            # The cost is unknown before this node has trained.
            and rate > 0
            and self._budget.affords(trio.current_time(), AUDIT_SAMPLES / (TRAINED_COST * rate))
        )

    async def audit(self, certificate: OpenCertificate, anchor: Vector) -> None:
        """Audit one contributor of a certificate.

        Args:
            certificate: the certificate of this node's own round, not adopted yet.
            anchor: its parent's anchor, shape (parameters,).
        """
        if self._busy:
            return
        self._busy = True
        try:
            await self._audit(certificate, self._state_store.tip, anchor)
        finally:
            self._busy = False

    async def _audit(self, certificate: OpenCertificate, tip: Tip, anchor: Vector) -> None:
        # The anchor's memory is written again in the exchange of the next round.
        before = await self._offload(anchor.copy)
        seed = audit_seed(self._signer, certificate.hash)
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
        for peer in draw_contributors(seed, self._candidates(certificate), self._unjudged(tip)):
            offer = certificate.plan.offers[certificate.plan.index[peer]]
            if not self._has_same_data(offer):
                continue
            own = self._named(offer, peer)
            if own is None or named_total(own) * NAMED_SHARE < offer.samples:
                self._score(certificate, peer, NO_WORK, "it names too little data")
                return
            others = [
                stretch
                for member, other in zip(
                    certificate.plan.members, certificate.plan.offers, strict=True
                )
                if member != peer
                for stretch in self._named(other, member) or ()
            ]
            try:
                groups = await self._offload(
                    partial(
                        audit_groups,
                        own,
                        others,
                        seed=self._manifest.seed,
                        trained=self._info.trained,
                        rng=rng,
                    )
                )
            except ValueError as error:
                self._score(certificate, peer, NO_WORK, str(error))
                return
            if groups is None:
                continue
            await self._measure(certificate, peer, seed, before, groups)
            return

    def _candidates(self, certificate: OpenCertificate) -> list[PeerId]:
        members = (certificate.plan.members[i] for i in certificate.contributors)
        return [peer for peer in members if peer != self._signer.peer]

    def _unjudged(self, tip: Tip) -> frozenset[PeerId]:
        """The known newcomers that this node cannot judge yet."""
        record = tip.record
        assert record is not None, "only runs with a record are audited"
        return frozenset(
            peer
            for peer in record.planned
            if peer not in self.history.verdicts
            and role_of(record, self._manifest, peer) is Role.NEWCOMER
        )

    def _has_same_data(self, offer: Ready) -> bool:
        """Whether the contributor's data is this node's: all of it, or of the same version."""
        private = self._info.task.private
        return not private or bool(
            self._info.task.sample and task_of(offer) == self._info.task.name
        )

    def _named(self, offer: Ready, peer: PeerId) -> list[DrawnStretch] | None:
        """Return the stretches of an offer; None where it names an unknown certificate."""
        found = []
        for stretch in offer.data if isinstance(offer, TrustReady) else ():
            tip = self._lineage.tip(stretch.tip)
            if tip is None:
                return None
            found.append(drawn_stretch(tip, peer, stretch))
        return found

    async def _measure(
        self,
        certificate: OpenCertificate,
        peer: PeerId,
        seed: bytes,
        anchor: Vector,
        groups: AuditGroups,
    ) -> None:
        plan = certificate.plan
        total = plan.plan.borders[-1]
        runs = draw_chunks(seed, peer, total)
        root = plan.offers[plan.index[peer]].contribution
        try:
            parts = await self._contributions.fetch(peer, plan.digest, root, runs, total)
        except Unreachable as error:
            if self.history.misses(peer):
                self._score(certificate, peer, NO_WORK, f"it is out of reach again: {error}")
            return
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
            self._score(certificate, peer, NO_WORK, str(fault))
            return
        self.history.reaches(peer)
        if parts is None:
            self._score(certificate, peer, NO_WORK, "it does not serve its contribution")
            return
        mean = await self._mean(certificate)
        if mean is None:
            return
        pieces = [
            Piece(first=first, stop=stop, data=part)
            for (first, stop), part in zip(runs, parts, strict=True)
        ]
        mine = self._contributions.own(plan.digest)
        share = share_of(plan, certificate.contributors, plan.index[peer])
        try:
            compared = await self._offload(
                partial(compare, pieces, self._codec, anchor, mean, mine, share)
            )
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
            self._score(certificate, peer, 0.0, "its contribution does not decode")
            return
        size_bytes = sum(len(part) for part in parts)
        if compared.is_zero or compared.reference is None:
            self._budget = self._budget.audited(seconds=0.0, size_bytes=size_bytes)
            if compared.is_zero:
                self._score(certificate, peer, 0.0, "its contribution is zero")
            return
        positions = np.concatenate([groups.own, groups.others])
        try:
            by_reference = await self._trainer.group_losses(compared.reference, positions)
            by_work = await self._trainer.group_losses(compared.work, positions)
        except TrainerLost:
            return
        except EvaluationFailed:
            self._failed_at = self._trainer.restarts
            return
        self._budget = self._budget.audited(
            seconds=by_reference.seconds + by_work.seconds, size_bytes=size_bytes
        )
        advantages = [
            without - loss
            for without, loss in zip(by_reference.losses, by_work.losses, strict=True)
        ]
        half = len(groups.own)
        self._score(certificate, peer, score_of(advantages[:half], advantages[half:]), "")

    async def _mean(self, certificate: OpenCertificate) -> Vector | None:
        """Return the certificate's mean, once this node has adopted it; None if it does not."""
        store = self._state_store
        for _ in range(MEAN_POLLS):
            mean = await store.results.mean_of(certificate)
            if mean is not None:
                out = np.empty(self._info.parameters, np.float32)
                return await self._offload(partial(mean.decode, 0, out))
            await trio.sleep(MEAN_POLL_S)
        return None

    def _score(self, certificate: OpenCertificate, peer: PeerId, score: float, reason: str) -> None:
        said = self.history.add(peer, score)
        self._record(
            WorkAudited(
                number=certificate.outcome.number,
                peer=peer,
                score=score,
                scores=self.history.scores(peer),
                favours=said,
                reason=reason,
            )
        )
