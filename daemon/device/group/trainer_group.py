"""The port `Trainer` over several trainers of one task, which train beside each other.

Each trainer has its part of the node's lane. A hand-over sums the displacements of all
(`group_work.py`). At the next `train`, `shift` or `resume`, every trainer moves to the parameters
of the group, and keeps the steps that it has made since its hand-over.

A trainer that dies loses the steps that it had not handed over. The others train on, and it joins
them at the next of these commands, with the inner optimizer's state of another one. A call raises
`TrainerLost` where no trainer can obey.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import trio
from msgspec.structs import replace

from daemon.device.group.group_events import joint_name
from daemon.device.group.group_members import GroupMembers, raise_if_all
from daemon.device.group.group_work import GroupWork
from protocol.averaging.vector_layout import Vector
from protocol.errors import UserError
from protocol.ports.offload import Offload
from protocol.ports.trainer import (
    Evaluation,
    GroupLosses,
    HeldOutShare,
    Lane,
    Positions,
    Progress,
    TaskInfo,
    Trainer,
    TrainerLost,
    Work,
)
from protocol.run.task_digest import difference

# A trainer that is up describes itself at once. A command does not wait for another one.
PROBE_S = 0.05


class TrainerGroup:
    """Satisfies `Trainer`. The steps of a group are those of each trainer, beside each other.

    Within a stretch, a trainer's place in the schedules counts its own samples alone. The next
    command that moves the trainers counts those of all.
    """

    def __init__(
        self, trainers: Sequence[Trainer], offload: Offload, warn: Callable[[str], None]
    ) -> None:
        """`warn` gets a sentence about each trainer whose steps are lost."""
        self._members = GroupMembers(trainers, warn)
        self._trainers, self._offload = self._members.trainers, offload
        self._work = GroupWork(len(trainers))
        self._info: TaskInfo | None = None
        # The group's parameters at the last hand-over, and the place in the run's schedules there.
        self._local: Vector = np.zeros(0, np.float32)
        self._position = 0
        # Whether the last command was a `collect` that ended.
        self._collected = False

    @property
    def restarts(self) -> int:
        """How often all trainers were lost: only then is the work of the group lost."""
        return self._members.restarts

    async def describe(self) -> TaskInfo:
        """Wait until every trainer is up; after the first time, until one of them is up."""
        if self._info is None:
            infos: dict[int, TaskInfo] = {}

            async def describe(number: int) -> None:
                infos[number] = await self._trainers[number].describe()

            if lost := await self._members.each(self._members.all, describe):
                raise next(iter(lost.values()))
            self._info = _joint_info([infos[number] for number in self._members.all])
            return self._info
        async with trio.open_nursery() as nursery:

            async def wait(trainer: Trainer) -> None:
                with suppress(TrainerLost):
                    await trainer.describe()
                    nursery.cancel_scope.cancel()

            for trainer in self._trainers:
                nursery.start_soon(wait, trainer)
        return self._info

    async def given_parameters(self) -> Vector:
        return await self._members.first(lambda trainer: trainer.given_parameters())

    # ------------------------------------------------------------------------------- movements

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        self._work.forget()
        self._local = await self._offload(partial(np.array, anchor))
        self._position, self._collected = position, False

        async def train(number: int) -> None:
            await self._trainers[number].train(
                anchor, self._part(lane, number), position=position, max_steps=max_steps
            )

        await self._members.begin(train)

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await self._move(local, lane, position, max_steps)
        self._local = await self._offload(partial(np.array, local))
        self._position = position

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        self._position = self._position if position is None else position
        if self._collected:
            await self._move(self._local, lane, self._position, max_steps)
            return

        async def resume(number: int) -> None:
            await self._trainers[number].resume(
                self._part(lane, number), position=position, max_steps=max_steps
            )

        await self._members.each_live(resume)

    async def _move(self, local: Vector, lane: Lane, position: int, max_steps: int | None) -> None:
        """Move every trainer to `local`, with its steps since the last hand-over."""

        async def shift(number: int) -> None:
            await self._trainers[number].shift(
                local, self._part(lane, number), position=position, max_steps=max_steps
            )

        await self._members.each_live(shift)
        self._collected = False
        for number in sorted(self._members.out):
            await self._let_join(number, local, lane, position, max_steps)

    async def _let_join(
        self, number: int, local: Vector, lane: Lane, position: int, max_steps: int | None
    ) -> None:
        """Let a trainer that was lost train again, if it is up."""
        trainer = self._trainers[number]

        async def train() -> None:
            inner = await self._trainers[self._members.live[0]].inner_state()
            # A state that is not finite is refused: this trainer then begins with its own.
            with suppress(ValueError):
                await trainer.restore_inner_state(inner)
            await trainer.train(
                local, self._part(lane, number), position=position, max_steps=max_steps
            )

        with suppress(TrainerLost), trio.move_on_after(PROBE_S) as probe:
            await trainer.describe()
            # What follows may take as long as it takes.
            probe.deadline = float("inf")
            await self._members.join(number, train)

    # ------------------------------------------------------------------------------------ work

    async def collect(self) -> Work:
        work = await self._take(lambda number: self._trainers[number].collect())
        self._collected = True
        return work

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        work = await self._take(
            lambda number: self._trainers[number].hand_over(
                self._part(lane, number), position=position
            )
        )
        self._position = self._position if position is None else position
        return work

    async def _take(self, hand_over: Callable[[int], Awaitable[Work]]) -> Work:
        if self._work.borrows:
            await self._offload(self._work.keep)
        self._collected = False

        async def take(number: int) -> None:
            self._work.add(number, await hand_over(number))

        await self._members.each_live(take)
        return await self._offload(self._sum)

    def _sum(self) -> Work:
        work = self._work.take(self._local.size)
        np.subtract(self._local, work.delta, out=self._local)
        self._position += work.samples
        return work

    async def release_work(self) -> None:
        await self._members.each(
            self._members.live, lambda number: self._trainers[number].release_work()
        )

    def progress(self) -> Progress:
        parts = [self._trainers[number].progress() for number in self._members.live]
        scored = [part for part in parts if part.loss is not None and part.samples]
        samples = sum(part.samples for part in scored)
        return Progress(
            steps=min((part.steps for part in parts), default=0),
            samples=sum(part.samples for part in parts),
            loss=sum((part.loss or 0.0) * part.samples for part in scored) / samples
            if samples
            else None,
            samples_per_second=sum(part.samples_per_second for part in parts),
        )

    # ----------------------------------------------------------------------------------- scores

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        return await self._members.first(lambda trainer: trainer.evaluate(parameters, share))

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        return await self._members.first(
            lambda trainer: trainer.group_losses(parameters, positions)
        )

    # ------------------------------------------------------------------------------ inner state

    async def inner_state(self) -> Vector:
        """Return the states of all trainers, one behind the other.

        A trainer that is lost has the state of another one.
        """
        first = await self._members.first(lambda trainer: trainer.inner_state())
        states: Vector = np.empty(len(self._trainers) * first.size, np.float32)
        for number, trainer in enumerate(self._trainers):
            state = first
            with suppress(TrainerLost):
                state = await trainer.inner_state()
            states[number * first.size : (number + 1) * first.size] = state
        return states

    async def restore_inner_state(self, state: Vector) -> None:
        """As `Trainer`. Also takes the state of a group of another size."""
        size = (await self._members.first(lambda trainer: trainer.inner_state())).size
        if state.size % size if size else state.size:
            raise ValueError(
                f"the inner state of {len(self._trainers)} trainers with {size} values each is"
                f" restored from several times {size} values, not from {state.size}"
            )
        count = max(1, state.size // size) if size else 1

        async def restore(number: int) -> None:
            at = number % count * size
            await self._trainers[number].restore_inner_state(state[at : at + size])

        raise_if_all(await self._members.each(self._members.all, restore), self._members.all)

    def _part(self, lane: Lane, number: int) -> Lane:
        return lane.part(number, len(self._trainers))


def _joint_info(infos: Sequence[TaskInfo]) -> TaskInfo:
    """Return the description of a group. Raises `UserError` where the trainers' tasks differ."""
    first = infos[0]
    for number, info in enumerate(infos[1:], start=2):
        if changed := difference(first.task, info.task):
            raise UserError(
                "TASK_DIFFERS",
                f"The task differs between device 1 and device {number} of this node.",
                why=changed,
                fix="make the task's data and model the same in every process that loads it",
            )
    device = joint_name([info.device for info in infos])
    return replace(first, device=device, threads=sum(info.threads for info in infos))
