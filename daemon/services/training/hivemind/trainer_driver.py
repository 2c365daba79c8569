"""Drives the trainer in a hivemind run: starts it, and collects what it learned."""

from __future__ import annotations

from collections.abc import Callable

from daemon.services.training.hivemind import policy
from daemon.services.training.hivemind.member_state import MemberState
from protocol.identity import PeerId
from protocol.journal import JournalEvent, Trained, Warned
from protocol.ports.trainer import Lane, Trainer, TrainerLost, Work


class TrainerDriver:
    """One node's use of its trainer, and the state that the work is added to.

    A trainer that ends loses the steps since the last `collect`.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: MemberState,
        me: PeerId,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.state = state
        self._trainer, self._me, self._record = trainer, me, record
        # The lane of the last command.
        self._lane = Lane(base=0, index=0, stride=1)

    async def train(self, others: frozenset[PeerId] = frozenset()) -> None:
        """Train from the anchor and the pending work. Waits until there is a trainer."""
        while True:
            self._lane = self._next_lane(others)
            try:
                await self._trainer.train(await self.state.local_parameters(), self._lane)
                return
            except TrainerLost as lost:
                self._warn("TRAINER", f"Training waits for the worker to restart: {lost}")
                await self._trainer.describe()
                await self.restore_inner_state()

    async def resume(self, others: frozenset[PeerId]) -> None:
        """Train on from the trainer's own parameters."""
        lane = policy.lane_of(self.state.number, self._me, sorted(others))
        if (lane.index, lane.stride) != (self._lane.index, self._lane.stride):
            # With other members the lane changes. Skip what this node has drawn already.
            self._lane = lane.after(self.state.drawn)
        try:
            await self._trainer.resume(self._lane)
        except TrainerLost:
            await self.train(others)

    async def collect(self) -> Work | None:
        """Add what was learned to the pending work.

        Returns None when the trainer ended; training has then begun again.
        """
        try:
            work = await self._collect()
        except TrainerLost as lost:
            self._warn("TRAINER", f"The steps of this round are lost: {lost}")
            await self.train()
            return None
        return work

    async def collect_last(self) -> None:
        """Add what was learned to the pending work, before the node ends."""
        try:
            work = await self._trainer.collect()
            await self.state.add(work.delta, work.samples)
            self.state.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            self._warn("TRAINER", f"The last steps are lost: {lost}")

    async def restore_inner_state(self) -> None:
        """Give the trainer the inner optimizer's state of the checkpoint."""
        if self.state.inner.size:
            try:
                await self._trainer.restore_inner_state(self.state.inner)
            except (ValueError, TrainerLost) as error:
                self._warn("INNER", f"The inner optimizer starts from zero: {error}")

    async def _collect(self) -> Work:
        work = await self._trainer.collect()
        await self.state.add(work.delta, work.samples)
        self._record(
            Trained(
                number=self.state.number + 1,
                steps=work.steps,
                samples=work.samples,
                loss=work.loss,
                seconds=work.seconds,
            )
        )
        self.state.inner = await self._trainer.inner_state()
        return work

    def _next_lane(self, others: frozenset[PeerId]) -> Lane:
        lane = policy.lane_of(self.state.number, self._me, sorted(others))
        return lane.after(self.state.drawn)

    def _warn(self, code: str, message: str) -> None:
        self._record(Warned(code=code, message=message))
