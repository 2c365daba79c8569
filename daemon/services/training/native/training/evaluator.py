"""Scores the anchors of adopted certificates on this node's share of the held-out samples.

`protocol/evaluation/budget.py` decides which anchors. A score runs beside the round and delays
nothing in it: calls to the trainer do not wait for it, and it holds no lock. The newest score
travels in the node's beacons.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.training_speed import RecentTrainingSpeed
from protocol.averaging.vector_layout import Vector
from protocol.certificates.tip import Tip
from protocol.evaluation.budget import EvaluationBudget
from protocol.journal import AnchorScored, JournalEvent, Warned
from protocol.messages.beacon import HeldOutScore
from protocol.ports.offload import Offload
from protocol.ports.trainer import EvaluationFailed, HeldOutShare, Trainer, TrainerLost

# The weight of the newest round in the mean length of the last ones.
NEWEST = 0.25


class Evaluator:
    """Scores one node's anchors, one at a time."""

    def __init__(
        self,
        *,
        trainer: Trainer,
        state_store: StateStore,
        limit: float,
        held_out: int,
        offload: Offload,
        record: Callable[[JournalEvent], None],
    ) -> None:
        """Score `held_out` samples, in at most the share `limit` of the time."""
        # The newest score, for the beacons.
        self.score: HeldOutScore | None = None
        # Whether training is paused: the device is left to other programs.
        self.held = False
        self._trainer, self._state_store = trainer, state_store
        self._held_out = held_out
        self._offload, self._record = offload, record
        self._budget = EvaluationBudget(began_s=trio.current_time(), limit=limit)
        self._adopted_s = trio.current_time()
        self._round_s: float | None = None
        self._busy = False
        self._speed = RecentTrainingSpeed(trainer)
        # The restarts of the worker in which the task could not score.
        self._failed_at = -1

    def look(self) -> None:
        """Note how fast the trainer is. Its figure begins again with each anchor."""
        self._speed.now(trio.current_time())

    async def adopted(self, tip: Tip) -> None:
        """Score the anchor of `tip`, if the budget allows it and no other score is under way."""
        now = trio.current_time()
        took = now - self._adopted_s
        self._adopted_s = now
        self._round_s = (
            took if self._round_s is None else self._round_s + NEWEST * (took - self._round_s)
        )
        if self.held or self._busy or not self._budget.affords(now) or not tip.number:
            return
        if self._failed_at == self._trainer.restarts or not self._held_out:
            return
        if self._budget.sample_s is None:
            rate = self._speed.now(now).samples_per_second
            if rate <= 0:
                return
            self._budget = self._budget.expecting(rate)
        share = self._budget.share(
            members=tip.members,
            me=self._state_store.me,
            number=tip.number,
            held_out=self._held_out,
            round_s=self._round_s,
            now_s=now,
        )
        if share is None:
            return
        self._busy = True
        try:
            await self._score(tip, share)
        finally:
            self._busy = False

    async def _score(self, tip: Tip, share: HeldOutShare) -> None:
        anchor = await self._anchor_of(tip)
        if anchor is None:
            return
        try:
            evaluation = await self._trainer.evaluate(anchor, share)
        except TrainerLost:
            # The worker's supervisor reports its end. The next anchor is scored.
            return
        except EvaluationFailed as failed:
            self._failed_at = self._trainer.restarts
            self._record(Warned(code="EVALUATION", message=f"No held-out loss: {failed}"))
            return
        self._budget = self._budget.scored(evaluation)
        if not math.isfinite(evaluation.loss):
            # The model is beyond what float32 can score. Members read finite losses only.
            self._record(
                Warned(
                    code="EVALUATION",
                    message=f"The held-out loss of certificate {tip.number} is not a number:"
                    " the model has diverged.",
                )
            )
            return
        self.score = HeldOutScore(
            number=tip.number,
            certificate=tip.hash,
            loss=evaluation.loss,
            samples=evaluation.samples,
        )
        self._record(
            AnchorScored(
                number=tip.number,
                certificate=tip.hash.hex(),
                loss=evaluation.loss,
                samples=evaluation.samples,
                seconds=evaluation.seconds,
                metrics=dict(evaluation.metrics),
            )
        )

    async def _anchor_of(self, tip: Tip) -> Vector | None:
        """Copy the anchor of `tip`; None if the node has moved on meanwhile.

        The buffer of an anchor is written again once the node has moved on.
        """
        store = self._state_store
        if store.tip.hash != tip.hash:
            return None
        value = store.anchor.value
        copy = await self._offload(value.copy)
        return copy if store.tip.hash == tip.hash else None
