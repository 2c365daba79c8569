"""Ten and a hundred nodes in virtual time: how the exchange grows with the swarm."""

from __future__ import annotations

from collections.abc import Callable

from simulator.bench.targets.target_row import Target, TargetRow, measured, unmeasured
from simulator.playback.player import play
from simulator.playback.report import StoryReport
from simulator.scenarios.story import QUICK, Story

FEW, MANY = 10, 100
# Ten chunks: every one of ten members owns a slice.
PARAMETERS = 40_960
# Three certified rounds.
SECONDS = 20.0
# A step of 10 samples takes 50 ms, so that the exchange does not wait for steps.
SAMPLES_PER_S = 200.0
# 100 Mbit/s, and round trips of 10 to 50 ms.
LINK = "good"
SCALING = Target(name="100 nodes against 10", wanted="below", limit=10.0, unit="times")


def exchange_story(nodes: int) -> Story:
    """A story without faults."""
    return Story(
        name="targets",
        nodes=nodes,
        seed=1,
        seconds=SECONDS,
        round=QUICK,
        link=LINK,
        parameters=PARAMETERS,
        samples_per_second=SAMPLES_PER_S,
    )


def scaling_row(few: StoryReport, many: StoryReport) -> TargetRow:
    """Compare the exchanges of two worlds. Pure."""
    for report in (few, many):
        if not report.ok:
            return unmeasured(SCALING, f"{report.nodes} nodes: {report.reason}")
        if not report.exchange_seconds:
            return unmeasured(SCALING, f"{report.nodes} nodes: nobody was counted")
    assert few.exchange_seconds
    assert many.exchange_seconds
    return measured(
        SCALING,
        many.exchange_seconds / few.exchange_seconds,
        f"the node's code in virtual time on links of 100 Mbit/s, {PARAMETERS:,} parameters: the"
        f" median exchange takes {few.exchange_seconds:.2f} s with {few.nodes} nodes and"
        f" {many.exchange_seconds:.2f} s with {many.nodes}",
    )


def measure_scaling(say: Callable[[str], None]) -> TargetRow:
    """Play both worlds, a quarter of a minute of processor time."""
    reports = []
    for nodes in (FEW, MANY):
        say(f"simulating {nodes} nodes")
        report = play(exchange_story(nodes)).report
        assert report is not None
        reports.append(report)
    return scaling_row(*reports)
