"""Checks that a world progresses while `min_peers` honest nodes hear each other.

Progress is judged twice. Until the first fault nothing stands in the way, so the first certificate
must come within a round and a view. After the last fault every live node must move on within
`settle_timeout_s`, along one lineage. Where too few honest nodes live, nothing is promised, and the
report says so. Where fewer voters than a quorum live, everybody may first wait for the rest as long
as the rules on patience say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from protocol.membership.patience import Patience, grace_of
from simulator.fakes.paths import PING_INTERVAL_S, PING_TIMEOUT_S
from simulator.scenarios.story import Story
from simulator.world.fault_scheduler import FaultScheduler
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World

# A silent peer counts as gone after this time (`daemon.swarm.members.silence_s` of a small swarm).
FORGET_S = 20.0
# Views that may fail after the last fault: a leader that is gone, one that did not hear, and one
# more.
TURNS = 3
# The interval between two checks.
LOOK_S = 0.5

SleepUntil = Callable[[float], Awaitable[None]]
"""Sleeps until an instant of virtual time."""


class ProgressCheck:
    """Judges the progress of one world.

    `excuse` says why nothing was promised at the end; it is empty otherwise.
    """

    def __init__(self, story: Story, world: World, scheduler: FaultScheduler) -> None:
        self.excuse = ""
        self._story, self._world, self._scheduler = story, world, scheduler

    @property
    def view_s(self) -> float:
        """The longest time that a failing view takes."""
        rules = self._story.round
        return rules.ready_s * 4 + rules.scatter_s + rules.gather_s * 2 + rules.vote_s * 2

    @property
    def settle_timeout_s(self) -> float:
        """From the last fault until every live node must have moved on.

        A silent loss is noticed, a few views fail, and a round is trained.
        """
        if self._story.settle_timeout_s is not None:
            return self._story.settle_timeout_s
        return (
            PING_TIMEOUT_S
            + PING_INTERVAL_S
            + FORGET_S
            + TURNS * self.view_s
            + 2 * self._story.round.seconds
        )

    async def begin(self, until: SleepUntil) -> None:
        """Wait for the first fault or the first certificate, whichever should come first."""
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
                f"nothing was certified within {deadline:g} s of the start, before any fault"
            )

    async def settle(self, until: SleepUntil) -> None:
        """Wait until every live node has moved since the last fault, and all share one lineage.

        The check fails when that is overdue.
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
                allowed_s = self.settle_timeout_s + self._patience_s()
                if trio.current_time() >= calm_s + allowed_s:
                    self._fail(f"{allowed_s:g} s after the last fault {behind}")
                    return
                await until(trio.current_time() + LOOK_S)
                behind = self._behind(before)
            if not behind:
                # Otherwise a fault that was placed at a step came late. From its end on everybody
                # has as long again.
                return

    def _fail(self, what: str) -> None:
        self._world.invariants.fail("progress", trio.current_time(), what)

    def _honest(self) -> list[SimulatedNode]:
        world = self._world
        return [node for node in world.awake() if node.index not in world.invariants.liars]

    def _too_few(self) -> bool:
        honest, needed = len(self._honest()), self._story.min_peers
        if honest < needed:
            self.excuse = (
                f"nothing is promised: {honest} honest nodes live after the last fault; a "
                f"certificate needs {needed}"
            )
        elif self._patience_s() > self._grace_s:
            self.excuse = "nothing is promised: at most one voter lives after the last fault"
        return bool(self.excuse)

    @property
    def _grace_s(self) -> float:
        return grace_of(self._story.grace_s, self._story.round.seconds)

    def _patience_s(self) -> float:
        """For how long the live voters wait for a quorum; 0 where they are one, or before rules 4.

        The records of the nodes that are furthest say who votes. A single voter waits for an hour,
        which no story lasts, and without a voter all wait for ever.
        """
        honest = self._honest()
        here = {node.peer for node in honest}
        best = max((self._world.number(node.index) for node in honest), default=0)
        waits = [0.0]
        for node in honest:
            if self._world.number(node.index) < best:
                continue
            store = node.engine.state_store if node.engine else None
            record = store.tip.record if store is not None else None
            if record is not None:
                patience = Patience(since=0.0, grace_s=self._grace_s, voters=len(record.counted))
                waits.append(patience.wait_s(len(here.intersection(record.counted))))
        return max(waits)

    def _behind(self, before: dict[int, int]) -> str:
        """Which node has not moved on or is on another branch; empty when all is well."""
        world = self._world
        honest = self._honest()
        if len(honest) < self._story.min_peers:
            return "too few live"
        best = max(world.number(node.index) for node in honest)
        reference = next(node for node in honest if world.number(node.index) == best)
        store = reference.engine.state_store if reference.engine else None
        if store is None:
            return "nobody has begun"
        for node in honest:
            mine = node.engine.state_store if node.engine else None
            where = f"node {node.index} ({node.phase.value if node.phase else 'starting'}"
            if mine is None or mine.tip.number <= before[node.index]:
                return f"{where}) is still at certificate {mine.tip.number if mine else 0}"
            if not store.lineage.descends(store.tip, mine.tip) and not mine.lineage.descends(
                mine.tip, store.tip
            ):
                return (
                    f"{where}) is on another branch than node {reference.index}, at "
                    f"{mine.tip.number} and {best}"
                )
        return ""
