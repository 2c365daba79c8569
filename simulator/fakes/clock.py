"""Virtual time: a world whose clock jumps to the next deadline, and a schedule of many small future acts in one task.

A world replays exactly for a seed only if trio's choice among runnable tasks is seeded too. Trio shuffles them on purpose and has no public
switch for that, hence the two private names below (https://github.com/python-trio/trio/issues/890); a test compares two runs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from heapq import heappop, heappush
from typing import Any, TypeVar

import trio
from trio.abc import Instrument
from trio.testing import MockClock

T = TypeVar("T")


def run_virtual(main: Callable[..., Awaitable[T]], *args: object, seed: int = 0, instruments: Sequence[Instrument] = ()) -> T:
    """`trio.run` in virtual time: starts at second 0, never waits, and does the same thing for the same seed.

    Nothing in it may use threads or sockets: the clock would jump past them.
    """
    internals: Any = trio._core._run  # type: ignore[attr-defined]
    before = internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r
    internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r = True, random.Random(seed)
    try:
        return trio.run(main, *args, clock=MockClock(autojump_threshold=0), instruments=instruments)
    finally:
        internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r = before


class Schedule:
    """Acts to come, done by one task in order of time and, within one tick, in the order they were entered.

    Times are rounded up to ticks, because each different instant costs the clock a jump (about 50 us of real time, five times what
    delivering a message costs); one millisecond is below every latency that a simulation asks about.
    """

    def __init__(self, tick_s: float = 0.001) -> None:
        self._tick_s = tick_s
        self._ticks: list[int] = []  # a heap of the keys of `_acts`
        self._acts: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        self._sleep = trio.CancelScope()

    def at(self, when_s: float, act: Callable[[Any], None], argument: Any) -> None:
        """Call `act(argument)` at `when_s` on trio's clock, or as soon as possible when that has passed. `act` must not raise.

        The clock may then be a rounding error short of `when_s`: what waits for a time waits for its act, and does not look at the clock.
        """
        tick = math.ceil(when_s / self._tick_s - 1e-6)
        acts = self._acts.get(tick)
        if acts is None:
            self._acts[tick] = [(act, argument)]
            heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._sleep.deadline = min(self._sleep.deadline, tick * self._tick_s)
        else:
            acts.append((act, argument))

    async def run(self) -> None:
        """Does what is due, for ever. One task runs this."""
        while True:
            now = math.floor(trio.current_time() / self._tick_s + 1e-6)
            while self._ticks and self._ticks[0] <= now:
                for act, argument in self._acts.pop(heappop(self._ticks)):
                    act(argument)
            deadline = self._ticks[0] * self._tick_s if self._ticks else math.inf
            with trio.CancelScope(deadline=deadline) as self._sleep:
                await trio.sleep_forever()
