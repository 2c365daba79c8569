"""Virtual time: a world whose clock jumps to the next deadline, and a schedule of many small future
acts that the clock itself does.

A world replays exactly for a seed only if trio's choice among runnable tasks is seeded too. Trio
shuffles them on purpose and has no public switch for that, hence the private names below
(https://github.com/python-trio/trio/issues/890); a test compares two runs. The jump itself is
trio's `MockClock._autojump`, which is private as well: a task that woke for every act cost three
times what the act itself does. So is the way in which a scope tells of its deadline (`_Deadline`).
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


def run_virtual(
    main: Callable[..., Awaitable[T]],
    *args: object,
    seed: int = 0,
    instruments: Sequence[Instrument] = (),
) -> T:
    """`trio.run` in virtual time: starts at second 0, never waits, and does the same thing for the
    same seed.

    Nothing in it may use threads or sockets: the clock would jump past them.
    """
    internals: Any = trio._core._run  # type: ignore[attr-defined]
    scope: Any = trio.CancelScope
    before = (
        internals._ALLOW_DETERMINISTIC_SCHEDULING,
        internals._r,
        scope._might_change_registered_deadline,
    )
    internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r = True, random.Random(seed)
    scope._might_change_registered_deadline = _changing
    clock = MockClock(autojump_threshold=0)
    _Jumper(clock)

    async def begin() -> T:
        if not instruments:
            # A plain dict: trio asks it three times a turn and twice a step whether anybody
            # watches, and its own is a slow `UserDict`.
            internals.GLOBAL_RUN_CONTEXT.runner.instruments = {}
        return await main(*args)

    try:
        return trio.run(begin, clock=clock, instruments=instruments)
    finally:
        (
            internals._ALLOW_DETERMINISTIC_SCHEDULING,
            internals._r,
            scope._might_change_registered_deadline,
        ) = before


class _Deadline:
    """Around a change of a scope: its deadline is noted or forgotten by trio's loop.

    What trio does in a generator, which is made anew twice for every scope; a world has tens of
    thousands of them in a minute.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = math.inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            scope._registered_deadline = new
            deadlines = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines  # type: ignore[attr-defined]
            if old != math.inf:
                deadlines.remove(old, scope)
            if new != math.inf:
                deadlines.add(new, scope)


def _changing(scope: trio.CancelScope) -> _Deadline:
    """A method of `CancelScope`: a class set in its place would not be given the scope."""
    return _Deadline(scope)


class _Jumper:
    """Where the clock goes when every task waits: to the next act or the next deadline, whichever
    is first.

    Takes the place of two methods of one `MockClock`, which may not be subclassed.
    """

    def __init__(self, clock: MockClock) -> None:
        self.now_s = 0.0
        self.schedules: list[Schedule] = []
        patched: Any = clock
        patched.current_time = lambda: self.now_s
        patched._autojump = self._jump
        patched.jumper = self

    def _jump(self) -> None:
        """Called by trio's loop with nothing to run: do what comes next, until a task has something
        to do.
        """
        runner: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # type: ignore[attr-defined]
        while True:
            deadline_s = runner.deadlines.next_deadline()
            first_s, first = math.inf, None
            for schedule in self.schedules:  # nearly always one
                if (next_s := schedule.next_s()) < first_s:
                    first_s, first = next_s, schedule
            if first is None or first_s > deadline_s:
                if deadline_s < math.inf:
                    self.now_s = max(self.now_s, deadline_s)
                return
            self.now_s = max(self.now_s, first_s)
            first.do_next()
            if runner.runq:
                return


class Schedule:
    """Acts to come, done in order of time and, within one tick, in the order they were entered.

    Times are rounded up to ticks, so that what they wake runs together: each different instant at
    which a task runs costs a turn of trio's loop, several times what delivering a message costs.
    One millisecond is below every latency that a simulation asks about.
    """

    def __init__(self, tick_s: float = 0.001) -> None:
        self._tick_s = tick_s
        self._ticks: list[int] = []  # a heap of the keys of `_acts`
        self._acts: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        self._failed = trio.Event()
        self._error: BaseException | None = None

    def at(self, when_s: float, act: Callable[[Any], None], argument: Any) -> None:
        """Call `act(argument)` at `when_s` on trio's clock, or as soon as every task waits when
        that has passed.

        `act` must not raise.

        The clock may then be a rounding error short of `when_s`: what waits for a time waits for
        its act, and does not look at the clock.
        """
        tick = math.ceil(when_s / self._tick_s - 1e-6)
        acts = self._acts.get(tick)
        if acts is None:
            self._acts[tick] = [(act, argument)]
            heappush(self._ticks, tick)
        else:
            acts.append((act, argument))

    def next_s(self) -> float:
        """When the next act is due; infinite when there is none."""
        return self._ticks[0] * self._tick_s if self._ticks else math.inf

    def do_next(self) -> None:
        """Do the acts of the next tick."""
        try:
            for act, argument in self._acts.pop(heappop(self._ticks)):
                act(argument)
        except BaseException as error:  # noqa: BLE001  # out of the clock it would end trio's own loop; `run` raises it where it belongs
            self._error = error
            self._failed.set()

    async def run(self) -> None:
        """While this runs, acts are done. Needs `run_virtual`. Raises what an act raised."""
        jumper: _Jumper = trio.lowlevel.current_clock().jumper  # type: ignore[attr-defined]
        jumper.schedules.append(self)
        try:
            await self._failed.wait()
        finally:
            jumper.schedules.remove(self)
        if self._error is not None:
            raise self._error
