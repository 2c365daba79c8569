"""Sums what several trainers of one node learned.

The trainers begin at the same parameters, and draw different samples. So their trajectories are
averaged as those of several nodes are: each displacement counts by its samples, and the work has
the samples of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Work

# The elements that are summed at a time: their product stays in the processor's cache.
_BLOCK = 1 << 20


class GroupWork:
    """The work of each trainer that the node has not received.

    A call that is cancelled may have the work of some trainers and not of others. It stays here.
    """

    def __init__(self, trainers: int) -> None:
        self._works: list[Work | None] = [None] * trainers
        # Whose delta is memory of the trainer, which its next hand-over overwrites.
        self._borrowed: set[int] = set()

    @property
    def borrows(self) -> bool:
        """Whether `keep` must come before the next hand-over."""
        return bool(self._borrowed)

    def keep(self) -> None:
        """Copy the deltas that are memory of the trainers."""
        for number in sorted(self._borrowed):
            work = self._works[number]
            if work is not None:
                self._works[number] = replace(work, delta=work.delta.copy())
        self._borrowed.clear()

    def add(self, number: int, work: Work) -> None:
        """Add the work of a trainer. The caller has called `keep` before the hand-over."""
        before = self._works[number]
        if before is None or not before.samples:
            self._works[number] = work
            self._borrowed.add(number)
        else:
            delta = before.delta
            np.add(delta, work.delta, out=delta)
            self._works[number] = replace(
                _totals(delta, [before, work]),
                steps=before.steps + work.steps,
                seconds=before.seconds + work.seconds,
                drawn=work.drawn,
            )

    def forget(self) -> None:
        """Forget all work."""
        self._works = [None] * len(self._works)
        self._borrowed.clear()

    def take(self, parameters: int) -> Work:
        """Return the work of the group, and forget it. Its delta is new memory.

        A step of the group is a step of each trainer beside each other. `parameters` is the length
        of the delta.
        """
        works = [work for work in self._works if work is not None]
        delta = weighted_sum([work for work in works if work.samples], parameters)
        whole = replace(_totals(delta, works), drawn=self._drawn())
        self.forget()
        return whole

    def _drawn(self) -> int:
        """Return how many samples of the lane are used: up to the last one of any trainer.

        Trainer n of N draws every N-th sample of the lane, from n on.
        """
        count = len(self._works)
        ends = [
            (work.drawn - 1) * count + number + 1
            for number, work in enumerate(self._works)
            if work is not None and work.drawn
        ]
        return max(ends, default=0)


def weighted_sum(works: Sequence[Work], parameters: int) -> Vector:
    """Return the sum of the deltas, each by its share of the samples, shape (parameters,).

    All zeros without work.
    """
    total = sum(work.samples for work in works)
    out: Vector = np.zeros(parameters, np.float32)
    for work in works:
        share = np.float32(work.samples / total)
        for at in range(0, parameters, _BLOCK):
            part = slice(at, at + _BLOCK)
            out[part] += work.delta[part] * share
    return out


def _totals(delta: Vector, works: Sequence[Work]) -> Work:
    """Return the figures of works that were made at the same time."""
    samples = sum(work.samples for work in works)
    loss_sum = sum(work.loss * work.samples for work in works if work.loss is not None)
    return Work(
        delta=delta,
        samples=samples,
        steps=max((work.steps for work in works), default=0),
        loss=loss_sum / samples if samples else None,
        seconds=max((work.seconds for work in works), default=0.0),
    )
