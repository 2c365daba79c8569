"""Whether a world goes on: with `min_peers` live honest nodes that hear each other, certificates
come.

Judged twice. From the beginning until the first fault nothing stands in the way, so that the first
certificate must come within a round and a view. After the last fault everybody alive must move on
within `patience_s`, along one lineage. Where too few honest nodes live nothing is promised, and the
report says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from simulator.fakes.swarm import PING_INTERVAL_S, PING_TIMEOUT_S
from simulator.scenarios.story import Story
from simulator.world.fault_scheduler import FaultScheduler
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World

# Until a silent peer counts as gone (daemon.swarm.members.silence_s, of few).
FORGET_S = 20.0
# Views that may come to nothing after the last fault: a leader that is gone, one that did not hear,
# one more.
TURNS = 3
LOOK_S = 0.5  # between looks at who has moved

SleepUntil = Callable[[float], Awaitable[None]]
"""Sleeps until an instant of virtual time."""


class ProgressCheck:
    """The judge of one world.

    `excuse` says why nothing was promised at its end; empty when something was.
    """

    def __init__(self, story: Story, world: World, scheduler: FaultScheduler) -> None:
        self.excuse = ""
        self._story, self._world, self._scheduler = story, world, scheduler

    @property
    def view_s(self) -> float:
        """The longest that a view takes to come to nothing."""
        rules = self._story.round
        return rules.ready_s * 4 + rules.scatter_s + rules.gather_s * 2 + rules.vote_s * 2

    @property
    def patience_s(self) -> float:
        """After the last fault, until everybody alive must have moved on: a silent loss is noticed,
        a few views fail, a round is trained.
        """
        if self._story.patience_s is not None:
            return self._story.patience_s
        return (
            PING_TIMEOUT_S
            + PING_INTERVAL_S
            + FORGET_S
            + TURNS * self.view_s
            + 2 * self._story.round.seconds
        )

    async def begin(self, until: SleepUntil) -> None:
        """To the first fault, or to the first certificate, whichever should come first."""
        starts = self._story.starts
        if len(starts if starts is not None else range(self._story.nodes)) < self._story.min_peers:
            return
        deadline = min(2 * self._story.round.seconds + self.view_s, self._story.seconds)
        while trio.current_time() < deadline:
            await until(min(deadline, trio.current_time() + LOOK_S))
            if self._scheduler.struck or any(
                self._world.number(node.index) for node in self._world.nodes
            ):
                return
        if deadline < self._story.seconds:
            self._fail(
                f"nothing was certified within {deadline:g} s of the beginning, and no fault had struck"
            )

    async def settle(self, until: SleepUntil) -> None:
        """Wait until everybody alive has moved since the last fault and stands on one lineage, or
        until that is overdue.
        """
        while True:
            while trio.current_time() < self._scheduler.over_s:
                await until(self._scheduler.over_s)
            struck = len(self._scheduler.struck)
            calm_s = trio.current_time()
            before = {node.index: self._world.number(node.index) for node in self._world.nodes}
            behind = "nobody has moved"
            while behind and len(self._scheduler.struck) == struck:
                if self._too_few():
                    return
                if trio.current_time() >= calm_s + self.patience_s:
                    self._fail(f"{self.patience_s:g} s after the last fault {behind}")
                    return
                await until(trio.current_time() + LOOK_S)
                behind = self._behind(before)
            if not behind:
                # Otherwise a fault that was placed at a step came late: from its end on everybody
                # has as long again.
                return

    def _fail(self, what: str) -> None:
        self._world.invariants.fail("progress", trio.current_time(), what)

    def _honest(self) -> list[SimulatedNode]:
        world = self._world
        return [node for node in world.hearing() if node.index not in world.invariants.liars]

    def _too_few(self) -> bool:
        honest, needed = len(self._honest()), self._story.min_peers
        if honest < needed:
            self.excuse = f"nothing is promised: {honest} honest nodes live after the last fault, a certificate takes {needed}"
        return honest < needed

    def _behind(self, before: dict[int, int]) -> str:
        """Who has not moved on, or is not where the others are; empty when all is well."""
        world = self._world
        honest = self._honest()
        if len(honest) < self._story.min_peers:
            return "too few live"
        best = max(world.number(node.index) for node in honest)
        reference = next(node for node in honest if world.number(node.index) == best)
        keeper = reference.engine.keeper if reference.engine else None
        if keeper is None:
            return "nobody has begun"
        for node in honest:
            mine = node.engine.keeper if node.engine else None
            where = f"node {node.index} ({node.phase.value if node.phase else 'starting'}"
            if mine is None or mine.tip.number <= before[node.index]:
                return f"{where}) is still at certificate {mine.tip.number if mine else 0}"
            if not keeper.lineage.descends(keeper.tip, mine.tip) and not mine.lineage.descends(
                mine.tip, keeper.tip
            ):
                return f"{where}) is on another branch than node {reference.index}, at {mine.tip.number} and {best}"
        return ""
