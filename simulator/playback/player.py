"""Plays a story: a world, its faults, the invariants, and the report."""

from __future__ import annotations

import gc
import resource
import time

import trio

from daemon.services.training.native.state.ledger_store import PASSED_BY
from protocol.journal import InputRefused, Planned, Trained, Warned, WorkDropped
from simulator.fakes.clock import run_virtual
from simulator.fakes.link_profiles import LINKS
from simulator.faults.fault import NODE_AT_STEP
from simulator.playback import report as r
from simulator.playback import voting
from simulator.playback.progress import ProgressCheck
from simulator.scenarios.story import Story
from simulator.world.fault_scheduler import FaultScheduler
from simulator.world.world import World


class StoryPlayer:
    """Plays one story, and reads the report off its world."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.world = World(
            seed=story.seed,
            nodes=story.nodes,
            manifest=story.manifest(),
            link=LINKS[story.link](),
            parameters=story.parameters,
            samples_per_second=story.pace_of,
            marked=story.marked,
            founders=story.founders,
            allowlist=story.allowlist,
        )
        for node in self.world.nodes:
            node.evaluation_speed = story.evaluation_speed
        self.scheduler = FaultScheduler(self.world, story.schedule)
        self.progress = ProgressCheck(story, self.world, self.scheduler)
        self.alive: list[tuple[float, int]] = []
        self.report: r.StoryReport | None = None
        self._began, self._cpu = time.perf_counter(), time.process_time()

    async def run(self) -> r.StoryReport:
        """Play the whole story, in virtual time."""
        story, world = self.story, self.world
        async with world.running():
            world.start(*(story.starts if story.starts is not None else range(story.nodes)))
            self.scheduler.begin()
            await self.progress.begin(self._until)
            await self._until(story.seconds)
            await self.progress.settle(self._until)
            self.report = self._read()
        return self.report

    async def _until(self, at_s: float) -> None:
        """Sleep, and record how many nodes are alive."""
        while trio.current_time() < at_s:
            living = sum(node.alive for node in self.world.nodes)
            if not self.alive or self.alive[-1][1] != living:
                self.alive.append((trio.current_time(), living))
            await trio.sleep(min(1.0, at_s - trio.current_time()))

    # ---------------------------------------------------------------- the report

    def _read(self) -> r.StoryReport:
        story, world, struck = self.story, self.world, self.scheduler.struck
        included, bound = r.goodput(world)
        longest, exchange = r.recovery_s(world, struck)
        detection = r.detection_s(world, struck)
        certified, usual = r.rounds(world), r.exchange_s(world, struck)
        reasons = [
            f"{broken.invariant} at {broken.at_s:.3f} s: {broken.what}"
            for broken in world.invariants.broken
        ]
        reasons += self._missed(certified, included, bound, detection, exchange, usual)
        return r.StoryReport(
            scenario=story.name,
            seed=story.seed,
            nodes=story.nodes,
            rounds_certified=certified,
            goodput=included,
            goodput_bound=bound,
            detection_seconds=detection,
            recovery_seconds=longest,
            recovery_exchange_seconds=exchange,
            exchange_seconds=usual,
            bytes_sent=r.bytes_sent(world),
            faults=len(struck),
            refused=r.refused(world),
            excuse=self.progress.excuse,
            unnoticed=world.invariants.unnoticed,
            invariants=world.invariants.held(),
            ok=not reasons,
            reason="; ".join(reasons[:3]),
            virtual_seconds=trio.current_time(),
            real_seconds=time.perf_counter() - self._began,
            cpu_seconds=time.process_time() - self._cpu,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            progress=tuple((at, number) for at, number, _ in r.first_certificates(world)),
            alive=tuple(self.alive),
        )

    def _missed(
        self,
        certified: int,
        included: float | None,
        bound: float | None,
        detection: float | None,
        exchange: float | None,
        usual: float | None,
    ) -> list[str]:
        """What the story wanted and did not get."""
        wanted, missed = self.story.wanted, []
        if certified < wanted.rounds:
            missed.append(f"{certified} rounds were certified; {wanted.rounds} are wanted")
        if wanted.goodput_of_bound is not None and (included or 0.0) < wanted.goodput_of_bound * (
            bound or 1.0
        ):
            missed.append(
                f"goodput {included or 0:.3f} is below {wanted.goodput_of_bound:g} of "
                f"{bound or 1:.3f}"
            )
        if wanted.detection_s is not None and (detection is None or detection > wanted.detection_s):
            missed.append(
                f"a crash was noticed after {detection} s; {wanted.detection_s:g} are allowed"
            )
        if wanted.recovery_exchange_s is not None and (
            exchange is None or exchange > wanted.recovery_exchange_s
        ):
            missed.append(
                f"the next certificate took {exchange} s without training; "
                f"{wanted.recovery_exchange_s:g} are allowed"
            )
        if wanted.recovery_exchanges is not None:
            allowed = (detection or 0.0) + wanted.recovery_exchanges * (usual or 0.0)
            if exchange is None or exchange > allowed:
                missed.append(
                    f"the next certificate took {exchange} s without training; detection "
                    f"and {wanted.recovery_exchanges:g} exchanges of"
                    f" {usual} s before the first fault make {allowed:.3f}"
                )
        if (
            wanted.longest_round_s is not None
            and (longest := r.longest_round_s(self.world)) > wanted.longest_round_s
        ):
            missed.append(f"a round took {longest:.2f} s; {wanted.longest_round_s:g} are allowed")
        for node, reason in wanted.refused:
            if not self._was_refused(node, reason):
                missed.append(f"nobody refused node {node} for {reason!r}")
        missed += [
            f"nobody suspected node {node} of a wrong sum"
            for node in wanted.suspected
            if not self._was_suspected(node)
        ]
        if wanted.liars_out_from_s is not None:
            missed += self._liars_in(wanted.liars_out_from_s)
        if self.scheduler.waiting:
            missed.append(f"{self.scheduler.waiting} faults were placed at steps that never came")
        dropped = [
            event
            for event in self.world.events(WorkDropped)
            if isinstance(event, WorkDropped) and PASSED_BY not in event.reason
        ]
        if wanted.drops_only_passed and dropped:
            missed.append(
                f"{sum(event.samples for event in dropped)} samples were dropped: "
                f"{dropped[0].reason}"
            )
        if wanted.votes is not None:
            missed += voting.missed(self.world, wanted.votes)
        if wanted.learns and not self._learned():
            missed.append("the loss did not fall")
        return missed

    def _was_refused(self, node: int, reason: str) -> bool:
        liars = self.world.invariants.liars if node == NODE_AT_STEP else {node}
        peers = {self.world.nodes[liar].peer for liar in liars}
        return any(
            isinstance(event, InputRefused)
            and event.reason == reason
            and event.peer in peers
            and index not in liars
            for _, index, event in self.world.history
        )

    def _was_suspected(self, node: int) -> bool:
        peer = self.world.nodes[node].peer
        return any(
            isinstance(event, Warned)
            and event.code == "WRONG_SUM"
            and peer in event.message
            and index not in self.world.invariants.liars
            for _, index, event in self.world.history
        )

    def _liars_in(self, from_s: float) -> list[str]:
        """Where a liar was included after it had been proved one."""
        world, liars = self.world, self.world.invariants.liars
        peers = {world.nodes[liar].peer for liar in liars}
        found = [
            f"node {index} plans with a liar at {at:.3f} s"
            for at, index, event in world.history
            if at >= from_s
            and isinstance(event, Planned)
            and index not in liars
            and event.leader == world.nodes[index].peer
            and peers & {*event.members}
        ]
        for node in world.nodes:
            convictions = node.engine.peers.fraud_proofs.guilty if node.engine else {}
            if node.index not in liars and not peers <= convictions.keys():
                found.append(f"node {node.index} does not know who lied")
        return found

    def _learned(self) -> bool:
        losses = [
            event.loss
            for event in self.world.events(Trained)
            if isinstance(event, Trained) and event.loss is not None
        ]
        return len(losses) > 1 and losses[-1] < losses[0]


def play(story: Story) -> StoryPlayer:
    """Play a story from beginning to end, in a virtual world of its own."""
    played = StoryPlayer(story)
    # A world becomes garbage all at once, at its end. Collection before that costs a fifth of its
    # time.
    gc.disable()
    try:
        run_virtual(played.run, seed=story.seed)
    finally:
        gc.enable()
    return played
