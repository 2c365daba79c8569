"""The trainer's side of a round: set it to work, collect what it learned, make the offer durable.

A trainer that dies costs its node the steps it had not handed over and nothing else: the node goes
on exchanging and voting.

Commands to the trainer are serialized: each is given with `lock` held. A trainer that is missing
when it is wanted, or that dies at work, is set to work again by one task, `attend`, however often
that happens. Nothing else waits for a trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import trio

from daemon.services.training.native.state.state_store import StateStore
from protocol.averaging.vector_layout import Vector
from protocol.contribution.ledger import NOTHING, Offer
from protocol.identity import PeerId
from protocol.journal import NOT_OFFERED, JournalEvent, Trained, Warned, WorkDropped
from protocol.ports.disk import DiskFull
from protocol.ports.trainer import Lane, Trainer, TrainerLost, Work
from protocol.run.manifest import Manifest

# For a step's border: others go on after seconds, and what comes later is part of the next collect.
COLLECT_S = 60.0
# Between looks at whether the trainer died at work: short beside a worker's start, which takes
# seconds.
LOOK_S = 1.0
# Between attempts to set a trainer to work that says it is up and does not take a command.
TRAINER_RETRY_S = 1.0
# Between attempts to make an offer durable on a full disk.
DISK_RETRY_S = 10.0


class TrainerLink:
    """One node's use of its trainer.

    `lock` is held by the task that uses the trainer or the spare buffers: one at a time.
    """

    def __init__(
        self,
        trainer: Trainer,
        state_store: StateStore,
        manifest: Manifest,
        me: PeerId,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.lock = trio.Lock()
        self._trainer, self._state_store, self._me, self._record = trainer, state_store, me, record
        self._max_steps = manifest.round.steps or None
        # The local parameters are not finite: nothing may be trained on from them.
        self._diverged = False
        # Set while the trainer should be at work and is not.
        self._wanted = trio.Event()
        self._leaving = trio.Event()
        self._at_work = False  # whether the last command set it to work
        self._lane = Lane(base=0, index=0, stride=1)  # of the last command
        # Sentences about a trainer that is missing, since it last worked.
        self._said_lost: set[str] = set()
        # Restarts of the trainer when it last got the inner optimizer's state: a later one knows
        # nothing.
        self._life = -1

    async def begin(self) -> None:
        """The engine starts: train from what the state_store holds, as soon as there is a trainer."""
        async with self.lock:
            await self.from_local()

    async def attend(self) -> None:
        """Set the trainer to work whenever it is missing.

        Runs until it is cancelled; there is one such task, and no other waits for a trainer.
        """
        while True:
            with trio.move_on_after(LOOK_S):
                await self._wanted.wait()
            if self._at_work and self._trainer.restarts != self._life:
                self._missing()
            if not self._wanted.is_set() or not await self._is_up():
                continue
            async with self.lock:
                if self._wanted.is_set():
                    await self.from_local()
            if self._wanted.is_set():
                await trio.sleep(TRAINER_RETRY_S)

    async def _is_up(self) -> bool:
        """Wait until the trainer is up, for a while."""
        with suppress(TrainerLost), trio.move_on_after(LOOK_S):
            await self._trainer.describe()
            return True
        await trio.sleep(TRAINER_RETRY_S)
        return False

    def _missing(self) -> None:
        self._at_work = False
        self._wanted.set()

    def _say_lost(self, words: str) -> None:
        """Once until the trainer works again: one whose task was given up stays away in every
        round.
        """
        if words not in self._said_lost:
            self._said_lost.add(words)
            self._record(Warned(code="TRAINER", message=words))

    def _working(self) -> None:
        self._at_work = True
        self._said_lost.clear()
        self._wanted = trio.Event()

    def _paused(self) -> None:
        """Until the round is over, or nobody else is there, nobody wants the trainer at work."""
        self._at_work = False
        self._wanted = trio.Event()

    async def from_local(self) -> None:
        """Train from the local parameters, as far as they were handed over: from the anchor, where
        nothing was trained since.

        Samples that were drawn are not drawn again. Where there is no trainer, `attend` does so
        when it is back. Call with `lock` held.
        """
        try:
            if self._diverged:
                if not self._state_store.inner.size:
                    self._state_store.inner = np.zeros_like(await self._trainer.inner_state())
                await self._restore_inner()
                self._diverged = False
            elif self._trainer.restarts != self._life:
                await self._restore_inner()
            self._lane = self._state_store.tip.lane(self._me).after(self._state_store.ledger.drawn)
            await self._trainer.train(
                await self._state_store.local(), self._lane, max_steps=self._max_steps
            )
        except TrainerLost as lost:
            if not self._wanted.is_set():
                self._say_lost(f"not training until the worker is back: {lost}")
            self._missing()
        else:
            self._working()

    async def _restore_inner(self) -> None:
        """The inner optimizer goes on where the state_store has it.

        Raises `TrainerLost`: then a later attempt does so.
        """
        life = self._trainer.restarts
        if self._state_store.inner.size:
            try:
                await self._trainer.restore_inner_state(self._state_store.inner)
            except ValueError as error:
                self._record(
                    Warned(code="INNER", message=f"the inner optimizer begins anew: {error}")
                )
        self._life = life

    async def resume(self) -> None:
        """Train on from the local parameters.

        Nothing where the trainer is at work: it must not begin its stretch anew.
        """
        async with self.lock:
            if self._at_work:
                return
            if self._diverged:
                await self.from_local()
                return
            try:
                await self._trainer.resume(self._lane, max_steps=self._max_steps)
            except TrainerLost:
                await self.from_local()
            else:
                self._working()

    async def make_offer(self) -> tuple[Offer, float | None]:
        """Collect, add to the ledger, encode, make durable.

        The offer is empty when there is nothing to offer. Call with `lock` held.
        """
        loss: float | None = None
        offer: Offer | None = None
        self._paused()
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
                # What could not be encoded was dropped, and with it the place that training stood
                # at.
                self._diverged = bool(work.samples) and not self._state_store.ledger.pending
                self._state_store.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            what = (
                "the inner optimizer's last steps are lost"
                if offer
                else "the steps since the last offer are lost"
            )
            self._say_lost(f"{what}: {lost}")
        return offer or await self._durable(self._state_store.anchor.value, 0), loss

    async def _is_finite(self, work: Work) -> bool:
        """Whether work may enter the ledger.

        One value that is not finite would make all that is ever offered from it so, and peers
        refuse that.
        """
        if not work.samples or await self._state_store.is_fit(work.delta):
            return True
        self._diverged = True
        self._state_store.ledger.drawn += work.samples
        self._record(
            Warned(
                code="DIVERGED",
                message="the local parameters are not finite any more; training goes on from the last that were",
            )
        )
        self._record(WorkDropped(samples=work.samples, reason="training diverged"))
        return False

    async def _durable(self, delta: Vector, samples: int) -> Offer:
        """An offer that is not durable must not be made: wait for the disk, and say so."""
        while True:
            try:
                return await self._state_store.ledger_store.make_offer(delta, samples)
            except DiskFull as full:
                self._record(Warned(code="DISK_FULL", message=f"{NOT_OFFERED}: {full}"))
                samples = 0  # they are in the ledger already
                with trio.move_on_after(DISK_RETRY_S):
                    await self._leaving.wait()
                    # `leave` needs the lock, and nobody sends this offer any more.
                    return NOTHING

    async def collect_unoffered(self) -> None:
        """The anchor is about to change under a trainer that may be running: keep what it learned
        since the last offer.

        `lock` held.
        """
        self._paused()
        try:
            with trio.move_on_after(COLLECT_S) as patience:
                work = await self._trainer.collect()
        except TrainerLost:
            # The steps since the last offer are lost with it, and its end is reported where it
            # happened.
            return
        if patience.cancelled_caught:
            lost = f"the worker did not reach a step's border within {COLLECT_S:g} s, and its steps since the last offer are lost"
            self._record(Warned(code="TRAINER", message=lost))
            return
        self._tell(work, only_if_any=True)
        if await self._is_finite(work):
            await self._state_store.ledger_store.add(work.delta, work.samples)

    async def leave(self) -> None:
        """What was trained since the last offer goes into the ledger: the first thing offered after
        a restart.
        """
        self._leaving.set()
        async with self.lock:
            self._paused()
            try:
                work = await self._trainer.collect()
                self._tell(work, only_if_any=True)
                if await self._is_finite(work):
                    await self._state_store.ledger_store.add(work.delta, work.samples)
                    self._state_store.inner = await self._trainer.inner_state()
            except TrainerLost as lost:
                self._record(Warned(code="TRAINER", message=f"the last steps are lost: {lost}"))

    def _tell(self, work: Work, *, only_if_any: bool = False) -> None:
        """Every sample that goes into the ledger is in the journal: what is pending there is what
        the status says.
        """
        if only_if_any and not work.samples:
            return
        number = self._state_store.tip.number + 1
        self._record(
            Trained(
                number=number,
                steps=work.steps,
                samples=work.samples,
                loss=work.loss,
                seconds=work.seconds,
            )
        )
