"""Virtual time: a clock that jumps to the next deadline, and a schedule of future acts.

A world replays exactly for a seed only if trio's choice among runnable tasks is seeded too. Trio
shuffles them on purpose and has no public switch for that, hence the private names below
(https://github.com/python-trio/trio/issues/890). A test compares two runs.

The jump is trio's `MockClock._autojump`, which is private as well: a task that woke for every act
cost three times what the act itself costs. Also private is the way in which a scope reports its
deadline (`_Deadline`).
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
    """Run like `trio.run`, but in virtual time.

    The run starts at second 0, never waits, and does the same for the same seed. Nothing in it may
    use threads or sockets: the clock would jump past them.
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
            # A plain dict. Trio looks three times a turn and twice a step whether anybody watches,
            # and its own `UserDict` is slow.
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
    """A context around a change of a scope: trio's loop records or forgets the scope's deadline.

    Trio does this with a generator that it makes twice for every scope. A world has tens of
    thousands of scopes in a minute.
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
            internals: Any = trio._core._run  # type: ignore[attr-defined]
            deadlines = internals.GLOBAL_RUN_CONTEXT.runner.deadlines
            if old != math.inf:
                deadlines.remove(old, scope)
            if new != math.inf:
                deadlines.add(new, scope)


def _changing(scope: trio.CancelScope) -> _Deadline:
    """A function, since a class in this place would not receive the scope."""
    return _Deadline(scope)


class _Jumper:
    """Moves the clock when every task waits: to the next act or deadline, whichever is first.

    It replaces two methods of one `MockClock`, which may not be subclassed.
    """

    def __init__(self, clock: MockClock) -> None:
        self.now_s = 0.0
        self.schedules: list[Schedule] = []
        patched: Any = clock
        patched.current_time = lambda: self.now_s
        patched._autojump = self._jump
        patched.jumper = self

    def _jump(self) -> None:
        """Run the next acts until a task can run. Trio's loop calls this when none can."""
        runner: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner  # type: ignore[attr-defined]
        while True:
            deadline_s = runner.deadlines.next_deadline()
            first_s, first = math.inf, None
            # There is nearly always one schedule.
            for schedule in self.schedules:
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
    """Future acts, run in order of time and, within one tick, in the order of entry.

    Times are rounded up to ticks, so that tasks woken by one tick run together. Each different
    instant at which a task runs costs a turn of trio's loop, several times the cost of delivering a
    message. One millisecond is below every latency that a simulation uses.
    """

    def __init__(self, tick_s: float = 0.001) -> None:
        self._tick_s = tick_s
        # A heap of the keys of `_acts`.
        self._ticks: list[int] = []
        self._acts: dict[int, list[tuple[Callable[[Any], None], Any]]] = {}
        self._failed = trio.Event()
        self._error: BaseException | None = None

    def at(self, when_s: float, act: Callable[[Any], None], argument: Any) -> None:
        """Call `act(argument)` at `when_s` on trio's clock, or as soon as every task waits.

        `act` must not raise. The clock may then be a rounding error short of `when_s`: a task that
        waits for a time waits for its act and does not read the clock.
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
        """Run the acts of the next tick."""
        try:
            for act, argument in self._acts.pop(heappop(self._ticks)):
                act(argument)
        except BaseException as error:  # noqa: BLE001
            # An exception here would end trio's own loop. `run` raises it instead.
            self._error = error
            self._failed.set()

    async def run(self) -> None:
        """Run acts while this runs. It needs `run_virtual`, and raises what an act raised."""
        jumper: _Jumper = trio.lowlevel.current_clock().jumper  # type: ignore[attr-defined]
        jumper.schedules.append(self)
        try:
            await self._failed.wait()
        finally:
            jumper.schedules.remove(self)
        if self._error is not None:
            raise self._error
