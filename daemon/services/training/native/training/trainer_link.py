"""Uses the trainer in rounds: starts it, collects what it learned, makes the offer durable.

A trainer that dies costs its node only the steps that were not collected: the node goes on
exchanging and voting.

Commands to the trainer are serialized: each needs `lock`. One task, `attend`, starts training again
whenever the trainer is missing or has died. No other task waits for a trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import trio

from daemon.services.training.native.state.state_store import StateStore
from protocol.averaging.vector_layout import Vector
from protocol.contribution.offer import NOTHING, Offer
from protocol.identity import PeerId
from protocol.journal import NOT_OFFERED, JournalEvent, Trained, Warned, WorkDropped
from protocol.ports.disk import DiskFull
from protocol.ports.trainer import Lane, Trainer, TrainerLost, Work
from protocol.run.manifest import Manifest

# The timeout for the trainer to end its step. Other nodes go on after seconds; the next collection
# includes later steps.
COLLECT_S = 60.0
# The time between checks of whether the trainer has died: short beside the start of a worker, which
# takes seconds.
POLL_S = 1.0
# The time between attempts to start training while the trainer is up and rejects the command.
TRAINER_RETRY_S = 1.0
# The time between attempts to make an offer durable on a full disk.
DISK_RETRY_S = 10.0


class TrainerLink:
    """One node's use of its trainer.

    A task that uses the trainer or the spare buffers holds `lock`.
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
        # Whether the local parameters are not finite, so that training cannot continue from them.
        self._diverged = False
        # Set while the trainer should be training and is not.
        self._wanted = trio.Event()
        self._leaving = trio.Event()
        # Whether the last command started training.
        self._is_training = False
        # The lane of the last command.
        self._lane = Lane(base=0, index=0, stride=1)
        # The warnings about a missing trainer since it last trained.
        self._warned: set[str] = set()
        # The restarts of the trainer when it last received the inner optimizer's state. A trainer
        # that has restarted since then has lost that state.
        self._restarts = -1

    async def begin(self) -> None:
        """Train from the local parameters as soon as there is a trainer."""
        async with self.lock:
            await self.from_local()

    async def attend(self) -> None:
        """Start training whenever the trainer is missing, until cancelled."""
        while True:
            with trio.move_on_after(POLL_S):
                await self._wanted.wait()
            if self._is_training and self._trainer.restarts != self._restarts:
                self._missing()
            if not self._wanted.is_set() or not await self._is_up():
                continue
            async with self.lock:
                if self._wanted.is_set():
                    await self.from_local()
            if self._wanted.is_set():
                await trio.sleep(TRAINER_RETRY_S)

    async def _is_up(self) -> bool:
        """Wait for the trainer for a while. Returns whether it is up."""
        with suppress(TrainerLost), trio.move_on_after(POLL_S):
            await self._trainer.describe()
            return True
        await trio.sleep(TRAINER_RETRY_S)
        return False

    def _missing(self) -> None:
        self._is_training = False
        self._wanted.set()

    def _warn_once(self, words: str) -> None:
        """Warn once until the trainer trains again.

        A trainer whose task has failed for good is missing in every round.
        """
        if words not in self._warned:
            self._warned.add(words)
            self._record(Warned(code="TRAINER", message=words))

    def _started(self) -> None:
        self._is_training = True
        self._warned.clear()
        self._wanted = trio.Event()

    def _paused(self) -> None:
        """Note that the trainer pauses until the round ends or the node trains on alone."""
        self._is_training = False
        self._wanted = trio.Event()

    async def from_local(self) -> None:
        """Train from the local parameters. Call with `lock` held.

        They equal the anchor where no work has been collected since. Samples that were drawn are
        not drawn again. Without a trainer, `attend` does this when the trainer is back.
        """
        try:
            if self._diverged:
                if not self._state_store.inner.size:
                    self._state_store.inner = np.zeros_like(await self._trainer.inner_state())
                await self._restore_inner()
                self._diverged = False
            elif self._trainer.restarts != self._restarts:
                await self._restore_inner()
            self._lane = self._state_store.tip.lane(self._me).after(self._state_store.ledger.drawn)
            await self._trainer.train(
                await self._state_store.local(), self._lane, max_steps=self._max_steps
            )
        except TrainerLost as lost:
            if not self._wanted.is_set():
                self._warn_once(f"Training stops until the worker is back: {lost}")
            self._missing()
        else:
            self._started()

    async def _restore_inner(self) -> None:
        """Give the trainer the inner optimizer's state.

        Raises `TrainerLost`; a later attempt does this again.
        """
        restarts = self._trainer.restarts
        if self._state_store.inner.size:
            try:
                await self._trainer.restore_inner_state(self._state_store.inner)
            except ValueError as error:
                self._record(
                    Warned(code="INNER", message=f"The inner optimizer starts from zero: {error}")
                )
        self._restarts = restarts

    async def resume(self) -> None:
        """Train on from the local parameters.

        A trainer that is training goes on: it must not restart the count of its steps.
        """
        async with self.lock:
            if self._is_training:
                return
            if self._diverged:
                await self.from_local()
                return
            try:
                await self._trainer.resume(self._lane, max_steps=self._max_steps)
            except TrainerLost:
                await self.from_local()
            else:
                self._started()

    async def make_offer(self) -> tuple[Offer, float | None]:
        """Collect from the trainer and make a durable offer. Call with `lock` held.

        Returns:
            The offer, which is empty when there is nothing to offer, and the training loss.
        """
        loss: float | None = None
        offer: Offer | None = None
        self._paused()
        try:
            with trio.move_on_after(COLLECT_S) as timeout:
                work = await self._trainer.collect()
            if timeout.cancelled_caught:
                raise TrainerLost(
                    f"the worker did not end its step within {COLLECT_S:g} s;"
                    " its steps are part of the next offer"
                )
            self._record_work(work)
            if await self._is_finite(work):
                loss = work.loss
                offer = await self._durable(work.delta, work.samples)
                # An offer that cannot be encoded was dropped, and its parameters are lost.
                self._diverged = bool(work.samples) and not self._state_store.ledger.pending
                self._state_store.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            what = (
                "The inner optimizer's last steps are lost"
                if offer
                else "The steps since the last offer are lost"
            )
            self._warn_once(f"{what}: {lost}")
        return offer or await self._durable(self._state_store.anchor.value, 0), loss

    async def _is_finite(self, work: Work) -> bool:
        """Return whether work may enter the ledger; report work that may not.

        One value that is not finite would spoil every later offer, and peers would refuse them.
        """
        if not work.samples or await self._state_store.is_fit(work.delta):
            return True
        self._diverged = True
        self._state_store.ledger.drawn += work.samples
        self._record(
            Warned(
                code="DIVERGED",
                message=f"The loss became NaN or infinite; {work.samples:,} samples were discarded."
                " If this repeats, lower [inner] learning_rate or check loss().",
            )
        )
        self._record(WorkDropped(samples=work.samples, reason="training diverged"))
        return False

    async def _durable(self, delta: Vector, samples: int) -> Offer:
        """Make a durable offer; report a full disk and wait for space."""
        while True:
            try:
                return await self._state_store.ledger_store.make_offer(delta, samples)
            except DiskFull as full:
                self._record(Warned(code="DISK_FULL", message=f"{NOT_OFFERED}: {full}"))
                # The samples are in the ledger already.
                samples = 0
                with trio.move_on_after(DISK_RETRY_S):
                    await self._leaving.wait()
                    # `leave` needs the lock, and this offer is never sent.
                    return NOTHING

    async def collect_unoffered(self) -> None:
        """Add the work since the last offer to the ledger, before the anchor changes.

        Call with `lock` held.
        """
        self._paused()
        try:
            with trio.move_on_after(COLLECT_S) as timeout:
                work = await self._trainer.collect()
        except TrainerLost:
            # The steps since the last offer are lost. The worker's supervisor reports its end.
            return
        if timeout.cancelled_caught:
            lost = (
                f"The worker did not end its step within {COLLECT_S:g} s."
                " Its steps since the last offer are lost."
            )
            self._record(Warned(code="TRAINER", message=lost))
            return
        self._record_work(work, only_if_any=True)
        if await self._is_finite(work):
            await self._state_store.ledger_store.add(work.delta, work.samples)

    async def leave(self) -> None:
        """Add the work since the last offer to the ledger, for the offer after a restart."""
        self._leaving.set()
        async with self.lock:
            self._paused()
            try:
                work = await self._trainer.collect()
                self._record_work(work, only_if_any=True)
                if await self._is_finite(work):
                    await self._state_store.ledger_store.add(work.delta, work.samples)
                    self._state_store.inner = await self._trainer.inner_state()
            except TrainerLost as lost:
                self._record(Warned(code="TRAINER", message=f"The last steps are lost: {lost}"))

    def _record_work(self, work: Work, *, only_if_any: bool = False) -> None:
        """Record the work, so that the journal counts every sample of the ledger."""
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
