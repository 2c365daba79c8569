"""The trainers of a group: commands to all of them, and which of them are lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import trio

from protocol.errors import UserError
from protocol.ports.trainer import Trainer, TrainerLost

T = TypeVar("T")


class GroupMembers:
    """Trainers by number. Those in `out` were lost, and wait until they may join the others."""

    def __init__(self, trainers: Sequence[Trainer], warn: Callable[[str], None]) -> None:
        """`warn` gets a sentence about each trainer whose steps are lost."""
        self.trainers, self._warn = tuple(trainers), warn
        self.out: set[int] = set()
        # The restarts of each trainer when it began to train.
        self._seen = [trainer.restarts for trainer in trainers]
        # How often all trainers were lost before.
        self._losses = 0

    @property
    def all(self) -> range:
        """The numbers of all trainers."""
        return range(len(self.trainers))

    @property
    def live(self) -> list[int]:
        """The numbers of the trainers that train with the group."""
        return [number for number in self.all if number not in self.out]

    @property
    def restarts(self) -> int:
        """How often all trainers were lost."""
        return self._losses + self._all_restarted()

    def _all_restarted(self) -> bool:
        return all(
            trainer.restarts != seen
            for trainer, seen in zip(self.trainers, self._seen, strict=True)
        )

    async def begin(self, train: Callable[[int], Awaitable[object]]) -> None:
        """Let all trainers begin to train. Raises `TrainerLost` where none can."""
        was_lost = self._all_restarted()
        restarts = [trainer.restarts for trainer in self.trainers]
        lost = await self.each(self.all, train)
        raise_if_all(lost, self.all)
        self.out = set(lost)
        for number in self.live:
            self._seen[number] = restarts[number]
        self._losses += was_lost

    async def join(self, number: int, train: Callable[[], Awaitable[object]]) -> None:
        """Let a trainer that was lost begin to train. Raises `TrainerLost`."""
        restarts = self.trainers[number].restarts
        await train()
        self.out.discard(number)
        self._seen[number] = restarts

    async def each(
        self, numbers: Iterable[int], command: Callable[[int], Awaitable[object]]
    ) -> dict[int, TrainerLost]:
        """Give a command to trainers at once. Returns those that were lost, and why.

        Raises the first other error of theirs.
        """
        lost: dict[int, TrainerLost] = {}
        errors: list[UserError | ValueError] = []

        async def obey(number: int) -> None:
            try:
                await command(number)
            except TrainerLost as error:
                lost[number] = error
            except (UserError, ValueError) as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(obey, number)
        if errors:
            raise errors[0]
        return lost

    async def each_live(self, command: Callable[[int], Awaitable[object]]) -> None:
        """Give a command to the live trainers at once. Those that are lost are `out` then.

        Raises `TrainerLost`, and changes nothing, where all are lost.
        """
        lost = await self.each(self.live, command)
        raise_if_all(lost, self.live)
        for number, error in lost.items():
            self.out.add(number)
            self._warn(
                f"The steps of device {number + 1} of {len(self.trainers)} since the last"
                f" hand-over are lost: {error}"
            )

    async def first(self, call: Callable[[Trainer], Awaitable[T]]) -> T:
        """Return what the first trainer says that is not lost."""
        lost = TrainerLost("the group has no trainer")
        for number in [*self.live, *sorted(self.out)]:
            try:
                return await call(self.trainers[number])
            except TrainerLost as error:
                lost = error
        raise lost


def raise_if_all(lost: dict[int, TrainerLost], numbers: Sequence[int]) -> None:
    """Raise the first loss where no trainer of `numbers` is left."""
    if lost and len(lost) == len(numbers):
        raise next(iter(lost.values()))
