"""The state of one trainer: training, paused or missing; and its way from each to training.

One task, `attend`, starts training again whenever the trainer is missing or has died. No other task
waits for a trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import trio

from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.training.data_lanes import DataLanes, LanePart
from protocol.averaging.vector_layout import Vector
from protocol.journal import JournalEvent, Warned
from protocol.messages.offer import DataStretch
from protocol.ports.trainer import Trainer, TrainerLost, Work
from protocol.run.manifest import RoundRules

# The timeout for the trainer to end its step. Other nodes go on after seconds; the next collection
# includes later steps.
COLLECT_S = 60.0
# The time between checks of whether the trainer has died: short beside the start of a worker, which
# takes seconds.
POLL_S = 1.0
# The time between attempts to start training while the trainer is up and rejects the command.
TRAINER_RETRY_S = 1.0


class TrainerSession:
    """One node's commands to its trainer. A task that gives one holds `lock`."""

    def __init__(
        self,
        trainer: Trainer,
        state_store: StateStore,
        rules: RoundRules,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.lock = trio.Lock()
        # Whether the trainer trains on during the exchange.
        self.overlaps = rules.overlaps
        # Whether the last command started training.
        self.is_training = False
        # Whether a person has paused training: no command starts it until they resume.
        self.held = False
        # Whether the trainer's parameters are spoiled, so that training cannot continue from them.
        self.diverged = False
        # Whether an exchange follows the last hand-over, with overlap.
        self.exchanging = False
        # Whether an exchange follows the last hand-over, without overlap: the trainer waits for it.
        self.waiting = False
        self.lanes = DataLanes(state_store)
        self._trainer, self._state_store, self._record = trainer, state_store, record
        self._max_steps = rules.steps or None
        # Set while the trainer should be training and is not.
        self._wanted = trio.Event()
        # The warnings about a missing trainer since it last trained.
        self._warned: set[str] = set()
        # The restarts of the trainer when it last received the inner optimizer's state. A trainer
        # that has restarted since then has lost that state.
        self._restarts = -1
        state_store.inner.source = self._present_inner

    async def attend(self) -> None:
        """Start training whenever the trainer is missing, until cancelled."""
        while True:
            with trio.move_on_after(POLL_S):
                await self._wanted.wait()
            if self.is_training and self._trainer.restarts != self._restarts:
                self.missing()
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

    def missing(self) -> None:
        """Note that the trainer should be training and is not."""
        self.is_training = False
        self._wanted.set()

    def warn_once(self, words: str) -> None:
        """Warn once until the trainer trains again.

        A trainer whose task has failed for good is missing in every round.
        """
        if words not in self._warned:
            self._warned.add(words)
            self._record(Warned(code="TRAINER", message=words))

    def _started(self) -> None:
        self.is_training = True
        self._warned.clear()
        self._wanted = trio.Event()

    def paused(self) -> None:
        """Note that the trainer pauses until the next command that trains."""
        self.is_training = False
        self._wanted = trio.Event()

    # ---------------------------------------------------------------- commands

    async def from_local(self) -> None:
        """Train from the local parameters.

        They equal the anchor where no work has been handed over since. Samples that were drawn are
        not drawn again. Without a trainer, `attend` does this when the trainer is back. While a
        person has paused training, nothing starts.
        """
        if self.held:
            self.paused()
            return
        try:
            if self.diverged:
                await self._restore_inner(anew=True)
                self.diverged = False
            elif self._trainer.restarts != self._restarts:
                await self._restore_inner()
            self.lanes.present = self.lanes.reserve() if self.exchanging else self.lanes.main()
            await self._trainer.train(
                await self._state_store.local(),
                self.lanes.present.lane,
                position=self._state_store.position,
                max_steps=self._max_steps,
            )
        except TrainerLost as lost:
            if not self._wanted.is_set():
                self.warn_once(f"Training stops until the worker is back: {lost}")
            self.missing()
        else:
            self._started()

    async def _restore_inner(self, *, anew: bool = False) -> None:
        """Give the trainer the inner optimizer's last saved state.

        Without one, `anew` gives the trainer zeros. Raises `TrainerLost`; a later attempt does this
        again.
        """
        restarts = self._trainer.restarts
        saved = await self._state_store.inner.saved()
        if anew and not saved.size:
            saved = np.zeros_like(await self._trainer.inner_state())
        if saved.size:
            try:
                await self._trainer.restore_inner_state(saved)
            except ValueError as error:
                self._record(
                    Warned(code="INNER", message=f"The inner optimizer starts from zero: {error}")
                )
        self._restarts = restarts

    async def resume(self) -> None:
        """Train on from where the trainer paused; without a trainer, as `from_local`."""
        if self.held:
            self.paused()
            return
        try:
            await self._trainer.resume(self.lanes.present.lane, max_steps=self._max_steps)
        except TrainerLost:
            await self.from_local()
        else:
            self._started()

    async def shift(self) -> None:
        """Move a trainer that trains to the local parameters of another anchor."""
        part = self.lanes.main()
        try:
            await self._trainer.shift(
                await self._state_store.local(), part.lane, position=self._state_store.position
            )
        except TrainerLost:
            # The steps since the last hand-over are lost. The worker's supervisor reports its end.
            await self.from_local()
        else:
            self.lanes.present = part

    async def take(
        self, part: LanePart | None
    ) -> tuple[Work, int | None, DataStretch | None] | None:
        """Take the work since the last hand-over.

        Args:
            part: What the trainer draws from now on; None pauses it.

        Returns:
            The work, and the newly used samples and their name as for `Ledger.add`. None where the
            worker did not end its step in time: it keeps the work.

        Raises:
            TrainerLost: The work is lost.
        """
        if part is None:
            self.paused()
        with trio.move_on_after(COLLECT_S):
            work = await (
                self._trainer.collect() if part is None else self._trainer.hand_over(part.lane)
            )
            stretch = self.lanes.stretch(work.drawn)
            drawn = self.lanes.count(work.drawn) if self.overlaps else None
            self.lanes.present = part or self.lanes.present
            return work, drawn, stretch
        return None

    async def keep_inner(self) -> None:
        """Free the memory of the work that was taken, and save the inner optimizer's state.

        A large state is saved with the next full state. Raises `TrainerLost`.
        """
        await self._trainer.release_work()
        if self._state_store.inner.is_copied:
            self._state_store.inner.vector = await self._trainer.inner_state()

    async def _present_inner(self) -> Vector | None:
        """Return the trainer's present inner state; None where it is not this node's, or lost."""
        if self.diverged or self._trainer.restarts != self._restarts:
            return None
        try:
            return await self._trainer.inner_state()
        except TrainerLost:
            return None
