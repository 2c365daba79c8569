"""Lets a voter that came back compare the model of a branch without a quorum with its own.

A node waits for the grace before it follows certificates of few voters (`patience.py`). A voter
that returns after days would wait as well, while the others went on without it. It therefore
downloads the branch's state, measures both anchors on samples that it draws itself, and is patient
at once where the branch has the lower loss. A poisoned branch does not.

Only a node that took part in no full certificate since its start tries branches, and only a few of
them: each try costs a download, and one voter's key can make any number of such certificates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.state.downloads import Downloads
from daemon.services.training.native.state.fork_choice import ForkChoice
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.lineage import Lineage
from protocol.audit.draw import audit_seed
from protocol.audit.samples import GROUP_SAMPLES, GROUPS
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.journal import Warned
from protocol.membership.patience import Patience
from protocol.ports.trainer import EvaluationFailed, Positions, TaskInfo, Trainer, TrainerLost

MOST_TRIALS = 4
"""The branches that a node tries in one life: two, and each once more after it moved on."""


class ReturnTrial:
    """The trials of one node, in one life."""

    def __init__(
        self,
        *,
        context: EngineContext,
        ports: NodePorts,
        trainer: Trainer,
        info: TaskInfo,
        state_store: StateStore,
        downloads: Downloads,
        lineage: Lineage,
        fork_choice: ForkChoice,
    ) -> None:
        self._signer, self._offload, self._record = context.signer, ports.offload, ports.record
        self._trainer, self._info = trainer, info
        self._state_store, self._downloads = state_store, downloads
        self._lineage, self._fork_choice = lineage, fork_choice
        self._tried: set[Digest] = set()
        self._busy = False
        # Whether this node took part in a full certificate, and so is no returning voter.
        self._over = False

    def took_part(self) -> None:
        """Note that this node computed the state of a full certificate: it has returned."""
        self._over = True

    def wants(self, tip: Tip, patience: Patience | None, now: float) -> OpenCertificate | None:
        """Return the certificate whose branch this node at `tip` tries next."""
        if (
            patience is None
            or self._over
            or self._busy
            or len(self._tried) >= MOST_TRIALS
            or tip.record is None
            or self._signer.peer not in tip.record.voters
        ):
            return None
        wanted = self._fork_choice.impatient_for(tip, now, patience)
        return None if wanted is None or wanted.hash in self._tried else wanted

    async def run(self, certificate: OpenCertificate, then: Callable[[], None]) -> None:
        """Try the branch of a certificate; call `then` where this node may follow it now."""
        entry = self._lineage.entry(certificate.hash)
        if self._busy or entry is None:
            return
        self._busy = True
        try:
            self._tried.add(certificate.hash)
            if await self._downloads.fetch(entry, follows=False):
                return
            arrived = self._downloads.get(certificate.hash)
            if arrived is not None and await self._is_better(certificate, arrived.value):
                self._fork_choice.trust(entry.tip)
                then()
        finally:
            self._busy = False

    async def _is_better(self, certificate: OpenCertificate, anchor: Vector) -> bool:
        """Return whether a branch's anchor has the lower loss."""
        ours = await self._offload(self._state_store.anchor.value.copy)
        theirs = await self._offload(anchor.copy)
        positions = self._drawn(certificate.hash)
        try:
            own_loss = await self._loss(ours, positions)
            loss = await self._loss(theirs, positions)
        except (TrainerLost, EvaluationFailed):
            return False
        better = loss < own_loss
        self._record(
            Warned(
                code="RETURN",
                message=f"Too few voters signed certificate {certificate.outcome.number}. On"
                f" {positions.size} samples that this node drew, its model has a loss of"
                f" {loss:.4g}, and this node's has {own_loss:.4g}: this node "
                + ("follows it at once." if better else "does not follow it before the grace."),
            )
        )
        return better

    async def _loss(self, parameters: Vector, positions: Positions) -> float:
        measured = await self._trainer.group_losses(parameters, positions)
        return float(np.mean(measured.losses))

    def _drawn(self, name: Digest) -> Positions:
        """Return the positions of the samples, shape (groups, samples); nobody else knows them."""
        seed = audit_seed(self._signer, name)
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
        return rng.integers(0, self._info.trained, size=(GROUPS, GROUP_SAMPLES))
