"""Twelve real members in three distant clusters on narrow links: all hold the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from protocol.run.manifest import Group, Manifest, RoundRules, seal
from simulator.harness.cohort import Cohort, cohort_of
from simulator.harness.relay import LinkCondition, Relay
from simulator.harness.trial import TrialRunner
from simulator.harness.wire import Certified

CLUSTERS, SIZE = 3, 4
MEMBERS = CLUSTERS * SIZE
# 400 KB in float32.
ELEMENTS = 100_000
NEAR = LinkCondition(delay_s=0.001, bytes_per_second=8e6)
FAR = LinkCondition(delay_s=0.04, bytes_per_second=1e6)
ROUNDS = 6
PATIENCE_S = 240.0

RULES = RoundRules(seconds=6.0, ready_s=10.0, scatter_s=30.0, gather_s=30.0, vote_s=15.0)
SIGNED = seal(
    Manifest(name="clusters", task="content", seed=12, round=RULES, group=Group(max_group=SIZE))
)

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]


async def start_behind(relay: Relay, cohort: Cohort) -> None:
    """Start every member behind an address of the relay, with the links of its cluster."""
    names = [member.home.name for member in cohort.members]
    for i, one in enumerate(names):
        for j in range(i + 1, MEMBERS):
            relay.between(one, names[j], NEAR if i // SIZE == j // SIZE else FAR)
    for member in cohort.members:
        listens, advertised = f"127.87.3.{member.index + 1}", f"127.88.3.{member.index + 1}"
        relay.introduce(
            member.home.name, lambda member=member: member.pid if member.alive else None
        )
        ports = [await relay.forward(member.home.name, advertised, listens) for _ in range(2)]
        where = [
            "--listen",
            listens,
            "--advertise",
            advertised,
            "--port",
            str(ports[0]),
            "--bulk-port",
            str(ports[1]),
        ]
        await cohort.start(member, *where)


async def test_twelve_in_three_clusters_end_with_the_same_bytes(tmp_path: Path) -> None:
    async with (
        trio.open_nursery() as nursery,
        cohort_of(MEMBERS, tmp_path, SIGNED, ELEMENTS) as cohort,
    ):
        trials = TrialRunner(cohort, tmp_path)
        relay = Relay(nursery)
        await start_behind(relay, cohort)

        def reached(number: int) -> bool:
            return all(
                member.tip is not None and member.tip.number >= number for member in cohort.members
            )

        await cohort.until(lambda: reached(ROUNDS), f"all hold certificate {ROUNDS}", PATIENCE_S)
        trials.judge.catch_up()
        steps = sorted(trials.audit.steps.values(), key=lambda step: step.tip.number)
        for step in steps:
            plan = step.certificate.plan.plan
            print(
                f"certificate {step.tip.number}: {len(plan.offers)} members in groups "
                f"{[len(group) for group in plan.groups]}: {plan.reason}"
            )
        assert any(len(step.certificate.plan.plan.groups) >= CLUSTERS for step in steps)
        assert {step.tip.number for step in steps} >= set(range(1, ROUNDS + 1))
        states: dict[int, set[str]] = {}
        for member in cohort.members:
            for line in member.lines:
                if isinstance(line, Certified) and line.state:
                    states.setdefault(line.number, set()).add(line.state)
        assert all(len(each) == 1 for each in states.values()), states
        assert set(trials.audit.findings.values()) == {""}
        assert trials.audit.doubts == []
        nursery.cancel_scope.cancel()
