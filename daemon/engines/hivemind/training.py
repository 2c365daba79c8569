"""The trainer's side of a hivemind run: set it to work, collect what it learned. A trainer that dies costs its node the steps not handed over."""

from __future__ import annotations

from collections.abc import Callable

from daemon.engines.hivemind import policy
from daemon.engines.hivemind.keeping import Keeping
from protocol.identity import PeerId
from protocol.journal import Event, Trained, Warned
from protocol.ports import Trainer, TrainerLost, Work


class Training:
    """One node's use of its trainer, and what it keeps of what was learned."""

    def __init__(self, trainer: Trainer, kept: Keeping, me: PeerId, record: Callable[[Event], None]) -> None:
        self.kept = kept
        self._trainer, self._me, self._record = trainer, me, record

    async def train(self, others: frozenset[PeerId] = frozenset()) -> None:
        """From the anchor, as soon as there is a trainer."""
        while True:
            try:
                await self._trainer.train(self.kept.anchor, policy.lane_of(self.kept.number, self._me, sorted(others)))
                return
            except TrainerLost as lost:
                self._record(Warned(code="TRAINER", message=f"not training until the worker is back: {lost}"))
                await self._trainer.describe()
                await self.restore_inner()

    async def go_on(self, others: frozenset[PeerId]) -> None:
        """From the local parameters."""
        try:
            await self._trainer.resume(policy.lane_of(self.kept.number, self._me, sorted(others)))
        except TrainerLost:
            await self.train(others)

    async def collect(self) -> Work | None:
        """What was learned joins what waits. None when it is lost, and training has begun anew."""
        try:
            work = await self._trainer.collect()
            await self.kept.add(work.delta, work.samples)
            self._record(Trained(number=self.kept.number + 1, steps=work.steps, samples=work.samples, loss=work.loss, seconds=work.seconds))
            self.kept.inner = await self._trainer.inner_state()
        except TrainerLost as lost:
            self._record(Warned(code="TRAINER", message=f"the steps of this round are lost: {lost}"))
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
                self._record(Warned(code="INNER", message=f"the inner optimizer begins anew: {error}"))
