"""Makes a schedule of faults happen in a world, each when its time or its step has come."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import trio

from protocol.journal import JournalEvent, PhaseEntered
from simulator.fakes.link import LinkModel
from simulator.faults import fault as f
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World


class Struck(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that began; `node` is who it happened to, WHOEVER resolved."""

    at_s: float
    node: int
    fault: f.AnyFault
    # The seats that had a connection to it: who can notice.
    connected: frozenset[int] = frozenset()


class FaultScheduler:
    """Watches one world.

    `struck` is what has happened so far, `over_s` when the last of it is over.
    """

    def __init__(self, world: World, schedule: f.Schedule) -> None:
        self.struck: list[Struck] = []
        self.over_s = 0.0
        self._world = world
        self._steps = [fault for fault in schedule if fault.when is not None]
        self._times = [fault for fault in schedule if fault.at_s is not None]
        world.watchers.append(self._watch)

    def begin(self) -> None:
        """From now on, faults happen. The world is running."""
        for fault in self._times:
            assert fault.at_s is not None
            self._later(fault.at_s, partial(self._strike, fault, f.WHOEVER))

    @property
    def waiting(self) -> int:
        """Faults placed at steps that have not come."""
        return len(self._steps)

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        self._world.swarm.schedule.at(at_s, lambda _: act(), None)

    def _watch(self, now: float, seat: SimulatedNode, event: JournalEvent) -> None:
        if not self._steps or not isinstance(event, PhaseEntered):
            return
        for fault in [fault for fault in self._steps if self._has_come(fault, seat, event)]:
            assert fault.when is not None
            self._steps.remove(fault)
            if fault.when.after_s:
                self._later(now + fault.when.after_s, partial(self._strike, fault, seat.index))
            else:
                self._strike(fault, seat.index)

    @staticmethod
    def _has_come(fault: f.AnyFault, seat: SimulatedNode, event: PhaseEntered) -> bool:
        when = fault.when
        assert when is not None
        if (
            event.phase != when.enters
            or when.node not in (None, seat.index)
            or when.number not in (None, event.number)
        ):
            return False
        state = seat.state
        return when.role == "any" or (state is not None and state.leads == (when.role == "leader"))

    def _connected(self, node: int) -> frozenset[int]:
        network = self._world.seats[node].network if node >= 0 else None
        wires = network.wires if network is not None and self._world.seats[node].alive else {}
        return frozenset(seat.index for seat in self._world.seats if seat.peer in wires)

    # ------------------------------------------------------------------------------------------ what happens

    def _strike(self, fault: f.AnyFault, whoever: int) -> None:
        node = getattr(fault, "node", f.WHOEVER)
        node = whoever if node == f.WHOEVER else node
        if hasattr(fault, "node") and not 0 <= node < len(self._world.seats):
            # A schedule for a larger world, or nobody came to that step.
            return
        now = trio.current_time()
        self.struck.append(
            Struck(at_s=now, node=node, fault=fault, connected=self._connected(node))
        )
        self.over_s = max(self.over_s, now + f.lasts_s(fault))
        self._happen(fault, node, now)

    def _happen(self, fault: f.AnyFault, node: int, now: float) -> None:
        world = self._world
        match fault:
            case f.Kill(back_s=back_s):
                world.kill(node)
                if back_s is not None:
                    self._later(now + back_s, partial(world.start, node))
            case f.Start():
                world.start(node)
            case f.Leave():
                world.finish(node)
            case f.Partition(groups=groups, for_s=for_s):
                world.partition(*([i for i in group if i < len(world.seats)] for group in groups))
                self._later(now + for_s, world.heal)
            case f.Sever(other=other, for_s=for_s):
                self._sever(node, other, now + for_s)
            case f.Pause(for_s=for_s):
                self._pause(node, now + for_s)
            case f.Straggle(for_s=for_s):
                self._straggle(fault, node, now + for_s)
            case f.ByzantineBehavior(kind=kind, for_s=for_s):
                world.lie(node, kind)
                if for_s is not None:
                    self._later(now + for_s, partial(world.lie, node, None))
            case f.SkewClock(by_s=by_s):
                world.seats[node].clock_skew_s += by_s
            case f.Shift(by_s=by_s):
                world.seats[node].shift(by_s)
            case f.CrashTrainer():
                self._crash_trainer(world.seats[node])
            case f.Diverge():
                trainer = world.seats[node].trainer
                if trainer is not None:
                    trainer.diverges = True
            case f.FillDisk(for_s=for_s):
                medium = world.seats[node].medium
                medium.capacity_bytes = 0.0
                self._later(now + for_s, lambda: setattr(medium, "capacity_bytes", float("inf")))
            case f.Lose() | f.Duplicate() | f.Reorder() | f.Corrupt():
                self._trouble(fault, world.seats[node], now)

    def _sever(self, node: int, other: int, until_s: float) -> None:
        one, two = (
            self._world.seats[node].peer,
            self._world.seats[other % len(self._world.seats)].peer,
        )
        if one != two:
            self._world.swarm.sever(one, two)
            self._later(until_s, partial(self._world.swarm.mend, one, two))

    def _pause(self, node: int, until_s: float) -> None:
        seat = self._world.seats[node]
        life, network = seat.life, seat.network
        if not seat.alive or network is None:
            return
        seat.paused = True
        speed = seat.speed
        # A stopped process does not train; the stretch under way is let go on, to its round's end
        # at most.
        seat.set_speed(0.0)
        self._world.swarm.pause(seat.peer)

        def resume() -> None:
            seat.set_speed(speed or 1.0)
            if seat.life == life and seat.alive:
                seat.paused = False
                self._world.swarm.resume(seat.peer)

        self._later(until_s, resume)

    def _straggle(self, fault: f.Straggle, node: int, until_s: float) -> None:
        world, seat = self._world, self._world.seats[node]
        others = (
            [other.peer for other in world.seats if other is not seat]
            if fault.bits_per_second
            else []
        )
        seat.set_speed(fault.speed)
        for other in others:
            here = world.swarm.link_between(seat.peer, other)
            assert fault.bits_per_second is not None
            slow = LinkModel(
                latency_s=here.latency_s,
                jitter_s=here.jitter_s,
                loss=here.loss,
                bandwidth_bps=min(fault.bits_per_second, here.bandwidth_bps),
            )
            world.swarm.set_link(seat.peer, other, slow)

        def recover() -> None:
            seat.set_speed(1.0)
            for other in others:
                world.swarm.set_link(seat.peer, other, None)

        self._later(until_s, recover)

    def _crash_trainer(self, seat: SimulatedNode) -> None:
        if seat.alive and seat.trainer is not None:
            self._world.lost_samples += seat.trainer.progress().samples
            seat.trainer.inner.crash()

    def _trouble(
        self, fault: f.Lose | f.Duplicate | f.Reorder | f.Corrupt, seat: SimulatedNode, now: float
    ) -> None:
        mischief = seat.mischief
        name = {f.Lose: "lose", f.Duplicate: "double", f.Reorder: "swap", f.Corrupt: "corrupt"}[
            type(fault)
        ]
        setattr(mischief, name, fault.share)
        late_s = fault.late_s if isinstance(fault, f.Reorder) else None
        if late_s is not None:
            mischief.late_s = late_s

        def calm() -> None:
            setattr(mischief, name, 0.0)
            if late_s is not None:
                mischief.late_s = 0.0

        self._later(now + fault.for_s, calm)
