"""The trainer's side of a round: set it to work, collect what it learned, make the offer durable.

A trainer that dies costs its node the steps it had not handed over and nothing else: the node goes on exchanging and voting, and trains again
when the worker is back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import trio

from daemon.engines.native.keeper import Keeper
from protocol.identity import PeerId
from protocol.journal import Event, Trained, Warned, WorkDropped
from protocol.ledger import Offer
from protocol.manifest import Manifest
from protocol.ports import DiskFull, Trainer, TrainerLost, Vector, Work

COLLECT_S = 60.0  # for a step's border: others go on after seconds, and what comes later is part of the next collect
TRAINER_RETRY_S = 60.0  # the longest pause between restarts of a worker
DISK_RETRY_S = 10.0  # between attempts to make an offer durable on a full disk


class Training:
    """One node's use of its trainer. `lock` is held by whoever uses the trainer or the spare buffers: one at a time."""

    def __init__(self, trainer: Trainer, keeper: Keeper, manifest: Manifest, me: PeerId, record: Callable[[Event], None]) -> None:
        self.lock = trio.Lock()
        self._trainer, self._keeper, self._me, self._record = trainer, keeper, me, record
        self._max_steps = manifest.round.steps or None
        self._diverged = False  # the local parameters are not finite: nothing may be trained on from them

    async def restore_inner(self) -> None:
        """After a restart: the inner optimizer goes on where the checkpoint left it."""
        if self._keeper.inner.size:
            try:
                await self._trainer.restore_inner_state(self._keeper.inner)
            except (ValueError, TrainerLost) as error:
                self._record(Warned(code="INNER", message=f"the inner optimizer begins anew: {error}"))

    async def from_anchor(self) -> bool:
        """Train from the anchor. False when there is no trainer just now; `when_back` waits for it."""
        try:
            if self._diverged:
                if not self._keeper.inner.size:
                    self._keeper.inner = np.zeros_like(await self._trainer.inner_state())
                await self.restore_inner()
                self._diverged = False
            await self._trainer.train(self._keeper.anchor.value, self._keeper.tip.lane(self._me), max_steps=self._max_steps)
        except TrainerLost as lost:
            self._record(Warned(code="TRAINER", message=f"not training until the worker is back: {lost}"))
            return False
        return True

    async def when_back(self) -> None:
        """Train from the anchor as soon as the worker can, unless somebody else has set it to work by then."""
        trained = False
        while not trained:
            with trio.move_on_after(TRAINER_RETRY_S):
                await self._trainer.describe()
            async with self.lock:
                if self._trainer.progress().steps > 0:
                    return
                await self.restore_inner()
                trained = await self.from_anchor()
            if not trained:
                await trio.sleep(1.0)

    async def go_on(self) -> bool:
        """Nobody to average with: train on from the local parameters. False as in `from_anchor`."""
        async with self.lock:
            if self._diverged:
                return await self.from_anchor()
            try:
                await self._trainer.resume(self._keeper.tip.lane(self._me), max_steps=self._max_steps)
            except TrainerLost:
                return await self.from_anchor()
            return True

    async def make_offer(self) -> tuple[Offer, float | None]:
        """Collect, add to the ledger, encode, make durable. The offer is empty when there is nothing to offer. Call with `lock` held."""
        loss: float | None = None
        offer: Offer | None = None
        try:
            with trio.move_on_after(COLLECT_S) as patience:
                work = await self._trainer.collect()
            if patience.cancelled_caught:
                raise TrainerLost(
                    f"the worker did not reach a step's border within {COLLECT_S:g} s; what it does then is offered in the next round"
                )
            self._tell(work)
            if await self._is_finite(work):
                loss = work.loss
                offer = await self._durable(work.delta, work.samples)
                self._keeper.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            self._record(Warned(code="TRAINER", message=f"the steps of this round are lost: {lost}"))
        return offer or await self._durable(self._keeper.anchor.value, 0), loss

    async def _is_finite(self, work: Work) -> bool:
        """Whether work may enter the ledger. One value that is not finite would make all that is ever offered from it so, and peers refuse that."""
        if not work.samples or await self._keeper.is_fit(work.delta):
            return True
        self._diverged = True
        self._record(Warned(code="DIVERGED", message="the local parameters are not finite any more; training begins again from the anchor"))
        self._record(WorkDropped(samples=work.samples, reason="training diverged"))
        return False

    async def _durable(self, delta: Vector, samples: int) -> Offer:
        """An offer that is not durable must not be made: wait for the disk, and say so."""
        while True:
            try:
                return await self._keeper.make_offer(delta, samples)
            except DiskFull as full:
                self._record(Warned(code="DISK_FULL", message=f"nothing can be offered: {full}"))
                samples = 0  # they are in the ledger already
                await trio.sleep(DISK_RETRY_S)

    async def gather_loose(self) -> None:
        """The anchor is about to change under a trainer that may be running: keep what it learned since the last offer. `lock` held."""
        with suppress(TrainerLost), trio.move_on_after(COLLECT_S):
            work = await self._trainer.collect()
            self._tell(work, only_if_any=True)
            if await self._is_finite(work):
                await self._keeper.add(work.delta, work.samples)

    async def leave(self) -> None:
        """What was trained since the last offer goes into the ledger: the first thing offered after a restart."""
        async with self.lock:
            try:
                work = await self._trainer.collect()
                self._tell(work, only_if_any=True)
                if await self._is_finite(work):
                    await self._keeper.add(work.delta, work.samples)
                    self._keeper.inner = await self._trainer.inner_state()
            except TrainerLost as lost:
                self._record(Warned(code="TRAINER", message=f"the last steps are lost: {lost}"))

    def _tell(self, work: Work, *, only_if_any: bool = False) -> None:
        """Every sample that goes into the ledger is in the journal: what is pending there is what the status says."""
        if only_if_any and not work.samples:
            return
        number = self._keeper.tip.number + 1
        self._record(Trained(number=number, steps=work.steps, samples=work.samples, loss=work.loss, seconds=work.seconds))
