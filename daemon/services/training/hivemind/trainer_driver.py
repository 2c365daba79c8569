"""The trainer's side of a hivemind run: set it to work, collect what it learned.

A trainer that dies costs its node the steps not handed over.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.services.training.hivemind import policy
from daemon.services.training.hivemind.member_state import MemberState
from protocol.identity import PeerId
from protocol.journal import JournalEvent, Trained, Warned
from protocol.ports.trainer import Lane, Trainer, TrainerLost, Work


class TrainerDriver:
    """One node's use of its trainer, and what it keeps of what was learned."""

    def __init__(
        self,
        trainer: Trainer,
        kept: MemberState,
        me: PeerId,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self.kept = kept
        self._trainer, self._me, self._record = trainer, me, record
        self._lane = Lane(base=0, index=0, stride=1)  # of the last command

    async def train(self, others: frozenset[PeerId] = frozenset()) -> None:
        """From the local parameters as far as they were handed over (the anchor, after a round), as
        soon as there is a trainer.
        """
        while True:
            self._lane = policy.lane_of(self.kept.number, self._me, sorted(others)).after(
                self.kept.drawn
            )
            try:
                await self._trainer.train(await self.kept.local(), self._lane)
                return
            except TrainerLost as lost:
                self._record(
                    Warned(code="TRAINER", message=f"not training until the worker is back: {lost}")
                )
                await self._trainer.describe()
                await self.restore_inner()

    async def go_on(self, others: frozenset[PeerId]) -> None:
        """From the local parameters."""
        lane = policy.lane_of(self.kept.number, self._me, sorted(others))
        if (lane.index, lane.stride) != (self._lane.index, self._lane.stride):
            # With other members the lane is another one, and what it begins with was drawn.
            self._lane = lane.after(self.kept.drawn)
        try:
            await self._trainer.resume(self._lane)
        except TrainerLost:
            await self.train(others)

    async def collect(self) -> Work | None:
        """What was learned joins what waits. None when it is lost, and training has begun anew."""
        try:
            work = await self._trainer.collect()
            await self.kept.add(work.delta, work.samples)
            self._record(
                Trained(
                    number=self.kept.number + 1,
                    steps=work.steps,
                    samples=work.samples,
                    loss=work.loss,
                    seconds=work.seconds,
                )
            )
            self.kept.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            self._record(
                Warned(code="TRAINER", message=f"the steps of this round are lost: {lost}")
            )
            await self.train()
            return None
        return work

    async def leave(self) -> None:
        """The last that was learned joins what waits."""
        try:
            work = await self._trainer.collect()
            await self.kept.add(work.delta, work.samples)
            self.kept.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            self._record(Warned(code="TRAINER", message=f"the last steps are lost: {lost}"))

    async def restore_inner(self) -> None:
        """After a restart: the inner optimizer goes on where the checkpoint left it."""
        if self.kept.inner.size:
            try:
                await self._trainer.restore_inner_state(self.kept.inner)
            except (ValueError, TrainerLost) as error:
                self._record(
                    Warned(code="INNER", message=f"the inner optimizer begins anew: {error}")
                )
