"""Five minutes of eight real members, one of which is killed and restarted every twenty seconds.

There must be one lineage with exact results, without leaks and orphans.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import trio

from protocol.run.manifest import Manifest, RoundRules, seal
from simulator.harness.cohort import MemberProcess, cohort_of
from simulator.harness.trial import TrialRunner
from simulator.harness.wire import Certified, LinkLost, Remark
from tests.e2e.processes import Process, process, still_running

MEMBERS = 8
# Members that are not killed, and whose memory is watched.
LONG_LIVED = 2
# The vector has 25 chunks.
ELEMENTS = 100_000
CHURN_S = 300.0
EVERY_S = 20.0
# From a kill to the restart.
AWAY_S = 4.0
# Kills before the first measurement of memory, when buffers and caches have reached their size.
SETTLED = 3
# Limit for a long-lived member in four minutes; a leak of one vector a round would be 60 MB.
GROWTH_BYTES = 24 << 20

SIGNED = seal(Manifest(name="churn", task="content", seed=31, round=RoundRules(seconds=1.5)))

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(900)]


async def test_eight_members_one_killed_every_twenty_seconds(tmp_path: Path) -> None:
    rng = random.Random(7)
    bodies: list[Process] = []
    memory: dict[int, list[int]] = {index: [] for index in range(LONG_LIVED)}
    kills: list[tuple[float, str]] = []
    async with cohort_of(MEMBERS, tmp_path, SIGNED, ELEMENTS) as cohort:
        trials = TrialRunner(cohort, tmp_path)
        for member in cohort.members:
            await cohort.start(member)
            bodies.append(process(member.pid))
        first = await trials.until_whole()
        began = time.monotonic()
        while (now := time.monotonic()) < began + CHURN_S:
            victim = rng.choice(cohort.members[LONG_LIVED:])
            kills.append((time.monotonic(), victim.phase))
            cohort.end(victim)
            # The test kills by the clock and does not wait for the members.
            await trio.sleep(AWAY_S)
            await cohort.start(victim)
            bodies.append(process(victim.pid))
            if len(kills) >= SETTLED:
                for index, seen in memory.items():
                    seen.append(process(cohort.members[index].pid).memory_bytes)
            trials.catch_up()
            await trio.sleep_until(trio.current_time() + max(0.0, now + EVERY_S - time.monotonic()))
        last = await trials.until_whole()
        trials.catch_up()
        _tell(cohort.members, kills, memory, first.tip.number, last.tip.number)

        assert len({member.tip.hash for member in cohort.members if member.tip}) == 1
        wrong = {name: finding for name, finding in trials.audit.findings.items() if finding}
        assert not trials.audit.doubts
        assert not wrong
        states: dict[str, set[str]] = {}
        for line in (
            line
            for member in cohort.members
            for line in member.lines
            if isinstance(line, Certified) and line.state
        ):
            states.setdefault(line.hash, set()).add(line.state)
        assert all(len(held) == 1 for held in states.values()), "one certificate, one state"
        assert last.tip.number - first.tip.number >= CHURN_S / EVERY_S, (
            "at least one round for each kill"
        )
        for index, seen in memory.items():
            assert max(seen[-3:]) - max(seen[:3]) < GROWTH_BYTES, f"member {index} grew: {seen}"
    assert not still_running(bodies)


def _tell(
    members: list[MemberProcess],
    kills: list[tuple[float, str]],
    memory: dict[int, list[int]],
    first: int,
    last: int,
) -> None:
    """Print the figures for a manual run."""
    lived = members[:LONG_LIVED]
    certified = [
        [line.at_s for line in member.lines if isinstance(line, Certified) and line.state]
        for member in lived
    ]
    after = [
        min((at for at in times if at > killed), default=killed) - killed
        for killed, _ in kills
        for times in certified
    ]
    lost = sum(isinstance(line, LinkLost) for member in lived for line in member.lines)
    dropped = [
        line.text
        for member in members
        for line in member.lines
        if isinstance(line, Remark) and "dropped" in line.text
    ]
    print(
        f"{len(kills)} kills ({', '.join(phase for _, phase in kills)}); rounds {first} to {last}"
    )
    print(
        f"from a kill to a long-lived member's next certificate: median"
        f" {sorted(after)[len(after) // 2]:.2f} s, most {max(after):.2f} s"
    )
    print(f"connections lost by long-lived members: {lost}; dropped work: {dropped}")
    print("memory in MB:", {index: [size >> 20 for size in seen] for index, seen in memory.items()})
