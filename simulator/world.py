"""A world: nodes that run the real engine, over fake ports, in virtual time. The same seed gives the same history."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import trio

from protocol.journal import Event, RoundCertified, WorkDropped
from protocol.manifest import Manifest, seal
from simulator.fakes.disk import MemoryMedium
from simulator.fakes.link import LinkMap
from simulator.fakes.network import FakeSwarm
from simulator.invariants import Invariants
from simulator.seat import Seat

LOOK_S = 0.05  # between looks at a condition that is waited for, in virtual time


class World:
    """`nodes` seats, all empty at first; `start` fills one. Use inside `running()` and `simulator.fakes.clock.run_virtual`."""

    def __init__(
        self,
        *,
        seed: int,
        nodes: int,
        manifest: Manifest,
        link: LinkMap | None = None,
        parameters: int = 20_000,
        samples_per_second: Callable[[int], float] = lambda index: 100.0 + 10.0 * index,
    ) -> None:
        self.rng = random.Random(seed)
        self.swarm = FakeSwarm(self.rng, link)
        self.manifest = seal(manifest)
        self.invariants = Invariants()
        self.history: list[tuple[float, int, Event]] = []
        self.seats = [Seat(i, self.rng.randbytes(32), MemoryMedium(), samples_per_second(i)) for i in range(nodes)]
        self._parameters = parameters
        self._serial = 0
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.swarm.running(), trio.open_nursery() as nursery:
            self._nursery = nursery
            yield
            nursery.cancel_scope.cancel()

    # ------------------------------------------------------------------------------------------ lives

    def start(self, *indices: int) -> None:
        """Begin a life for each of these seats (all of them without arguments)."""
        assert self._nursery is not None
        for index in indices or range(len(self.seats)):
            seat = self.seats[index]
            self._nursery.start_soon(seat.live, self.swarm, self.manifest, self._parameters, self._recorder(seat), self._next_serial)

    def kill(self, index: int) -> None:
        """kill -9: connections are reset, nothing more is written."""
        self.swarm.kill(self.seats[index].peer)
        self.seats[index].end()

    def finish(self, index: int) -> None:
        """Ask the node to leave in order."""
        engine = self.seats[index].engine
        assert engine is not None
        engine.finish()

    def partition(self, *groups: Iterable[int]) -> None:
        self.swarm.partition(*([self.seats[i].peer for i in group] for group in groups))

    def heal(self) -> None:
        self.swarm.heal()

    # ------------------------------------------------------------------------------------------ what happened

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _recorder(self, seat: Seat) -> Callable[[Event], None]:
        def record(event: Event) -> None:
            now = trio.current_time()
            self.history.append((now, seat.index, event))
            if isinstance(event, WorkDropped):
                self.invariants.dropped(seat, event.samples)
            if isinstance(event, RoundCertified) and event.state_digest:
                self.invariants.moved(seat, now)

        return record

    def of(self, kind: type[Event], *, node: int | None = None, after: float = 0.0) -> list[Event]:
        """Events of one kind, of one node or all, from some instant on."""
        return [event for at, index, event in self.history if isinstance(event, kind) and at >= after and node in (None, index)]

    def number(self, index: int) -> int:
        """The number of the certificate whose anchor a node holds."""
        engine = self.seats[index].engine
        return engine.keeper.tip.number if engine and engine.keeper else 0

    def tips(self) -> set[bytes]:
        """The tips of the living."""
        return {seat.engine.keeper.tip.hash for seat in self.seats if seat.alive and seat.engine and seat.engine.keeper}

    async def until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait in virtual time. Raises `TimeoutError` that says what did not come."""
        with trio.move_on_after(within_s):
            while not condition():
                await trio.sleep(LOOK_S)
            return
        raise TimeoutError(f"{what} did not come within {within_s:g} s of virtual time")
