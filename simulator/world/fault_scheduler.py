"""Makes a schedule of faults happen in a world, each at its time or its step."""

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


class StruckFault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that began. `node` is the node it struck, with `NODE_AT_STEP` resolved."""

    at_s: float
    node: int
    fault: f.AnyFault
    # The nodes that had a connection to it, and so can notice.
    connected: frozenset[int] = frozenset()


class FaultScheduler:
    """The faults of one world.

    `struck` is what has happened so far. `over_s` is when the last fault ends.
    """

    def __init__(self, world: World, schedule: f.Schedule) -> None:
        self.struck: list[StruckFault] = []
        self.over_s = 0.0
        self._world = world
        self._steps = [fault for fault in schedule if fault.when is not None]
        self._times = [fault for fault in schedule if fault.at_s is not None]
        world.watchers.append(self._watch)

    def begin(self) -> None:
        """From now on, faults happen. The world must be running."""
        for fault in self._times:
            assert fault.at_s is not None
            self._later(fault.at_s, partial(self._strike, fault, f.NODE_AT_STEP))

    @property
    def waiting(self) -> int:
        """The number of faults whose step has not come."""
        return len(self._steps)

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        self._world.swarm.schedule.at(at_s, lambda _: act(), None)

    def _watch(self, now: float, node: SimulatedNode, event: JournalEvent) -> None:
        if not self._steps or not isinstance(event, PhaseEntered):
            return
        for fault in [fault for fault in self._steps if self._has_come(fault, node, event)]:
            assert fault.when is not None
            self._steps.remove(fault)
            if fault.when.after_s:
                self._later(now + fault.when.after_s, partial(self._strike, fault, node.index))
            else:
                self._strike(fault, node.index)

    @staticmethod
    def _has_come(fault: f.AnyFault, node: SimulatedNode, event: PhaseEntered) -> bool:
        when = fault.when
        assert when is not None
        if (
            event.phase != when.enters
            or when.node not in (None, node.index)
            or when.number not in (None, event.number)
        ):
            return False
        state = node.state
        return when.role == "any" or (state is not None and state.leads == (when.role == "leader"))

    def _connected(self, index: int) -> frozenset[int]:
        network = self._world.nodes[index].network if index >= 0 else None
        connections = (
            network.connections if network is not None and self._world.nodes[index].alive else {}
        )
        return frozenset(node.index for node in self._world.nodes if node.peer in connections)

    # ---------------------------------------------------------------- the faults

    def _strike(self, fault: f.AnyFault, at_step: int) -> None:
        node = getattr(fault, "node", f.NODE_AT_STEP)
        node = at_step if node == f.NODE_AT_STEP else node
        if isinstance(fault, f.ByzantineBehavior) and fault.in_turn:
            node = self._world.in_turn()[node]
        if hasattr(fault, "node") and not 0 <= node < len(self._world.nodes):
            # The schedule is for a larger world, or no node reached that step.
            return
        now = trio.current_time()
        self.struck.append(
            StruckFault(at_s=now, node=node, fault=fault, connected=self._connected(node))
        )
        self.over_s = max(self.over_s, now + f.lasts_s(fault))
        self._apply(fault, node, now)

    def _apply(self, fault: f.AnyFault, node: int, now: float) -> None:
        world = self._world
        match fault:
            case f.Kill(back_s=back_s):
                world.kill(node)
                if back_s is not None:
                    self._later(now + back_s, partial(world.start, node))
            case f.PowerCut():
                self._cut_power(fault, now)
            case f.Start():
                world.start(node)
            case f.LeaveFault():
                world.finish(node)
            case f.Partition(groups=groups, for_s=for_s):
                world.partition(*([i for i in group if i < len(world.nodes)] for group in groups))
                self._later(now + for_s, world.heal)
            case f.Sever(other=other, for_s=for_s):
                self._sever(node, other, now + for_s)
            case f.Pause(for_s=for_s):
                self._pause(node, now + for_s)
            case f.Straggle(for_s=for_s):
                self._straggle(fault, node, now + for_s)
            case f.SlowDownlink(rate_bps=rate_bps, for_s=for_s):
                peer, paths = world.nodes[node].peer, world.swarm.paths
                paths.limit_downlink(peer, rate_bps)
                self._later(now + for_s, partial(paths.limit_downlink, peer, None))
            case f.ByzantineBehavior(kind=kind, for_s=for_s):
                world.lie(node, kind)
                if for_s is not None:
                    self._later(now + for_s, partial(world.lie, node, None))
            case f.SkewClock(by_s=by_s):
                world.nodes[node].clock_skew_s += by_s
            case f.Shift(by_s=by_s):
                world.nodes[node].shift(by_s)
            case f.CrashTrainer():
                self._crash_trainer(world.nodes[node])
            case f.Diverge():
                trainer = world.nodes[node].trainer
                if trainer is not None:
                    trainer.diverges = True
            case f.Poison(factor=factor):
                trainer = world.nodes[node].trainer
                if trainer is not None:
                    trainer.poison = factor
            case f.FillDisk(for_s=for_s):
                medium = world.nodes[node].medium
                medium.capacity_bytes = 0.0
                self._later(now + for_s, lambda: setattr(medium, "capacity_bytes", float("inf")))
            case f.Lose() | f.Duplicate() | f.Reorder() | f.Corrupt():
                self._disturb(fault, world.nodes[node], now)

    def _cut_power(self, fault: f.PowerCut, now: float) -> None:
        living = [node.index for node in self._world.nodes if node.alive]
        for index in living:
            self._world.kill(index)
        for place, index in enumerate(living):
            apart_s = fault.spread_s * place / max(1, len(living) - 1)
            self._later(now + fault.back_s + apart_s, partial(self._world.start, index))

    def _sever(self, index: int, other: int, until_s: float) -> None:
        one, two = (
            self._world.nodes[index].peer,
            self._world.nodes[other % len(self._world.nodes)].peer,
        )
        if one != two:
            self._world.swarm.sever(one, two)
            self._later(until_s, partial(self._world.swarm.mend, one, two))

    def _pause(self, index: int, until_s: float) -> None:
        node = self._world.nodes[index]
        life, network = node.life, node.network
        if not node.alive or network is None:
            return
        node.paused = True
        speed = node.speed
        # A stopped process does not train. The current stretch continues, at most to the end of its
        # round.
        node.set_speed(0.0)
        self._world.swarm.pause(node.peer)

        def resume() -> None:
            node.set_speed(speed or 1.0)
            if node.life == life and node.alive:
                node.paused = False
                self._world.swarm.resume(node.peer)

        self._later(until_s, resume)

    def _straggle(self, fault: f.Straggle, index: int, until_s: float) -> None:
        world, node = self._world, self._world.nodes[index]
        others = (
            [other.peer for other in world.nodes if other is not node] if fault.rate_bps else []
        )
        node.set_speed(fault.speed)
        for other in others:
            here = world.swarm.paths.link_between(node.peer, other)
            assert fault.rate_bps is not None
            slow = LinkModel(
                latency_s=here.latency_s,
                jitter_s=here.jitter_s,
                loss=here.loss,
                bandwidth_bps=min(fault.rate_bps, here.bandwidth_bps),
            )
            world.swarm.set_link(node.peer, other, slow)

        def recover() -> None:
            node.set_speed(1.0)
            for other in others:
                world.swarm.set_link(node.peer, other, None)

        self._later(until_s, recover)

    def _crash_trainer(self, node: SimulatedNode) -> None:
        if node.alive and node.trainer is not None:
            self._world.lost_samples += node.trainer.progress().samples
            node.trainer.inner.crash()

    def _disturb(
        self, fault: f.Lose | f.Duplicate | f.Reorder | f.Corrupt, node: SimulatedNode, now: float
    ) -> None:
        injector = node.injector
        name = {
            f.Lose: "loss",
            f.Duplicate: "duplication",
            f.Reorder: "reordering",
            f.Corrupt: "corruption",
        }[type(fault)]
        setattr(injector, name, fault.share)
        late_s = fault.late_s if isinstance(fault, f.Reorder) else None
        if late_s is not None:
            injector.late_s = late_s

        def end() -> None:
            setattr(injector, name, 0.0)
            if late_s is not None:
                injector.late_s = 0.0

        self._later(now + fault.for_s, end)
