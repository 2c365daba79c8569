"""Plots one run of a story: certified rounds over time, and the number of live nodes below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simulator.playback.figure import new_figure, save_figure
from simulator.playback.report import StoryReport

# The rounds get two thirds of the height.
HEIGHTS = (2.0, 1.0)


def plot_report(report: StoryReport, round_s: float, path: Path) -> None:
    """Plot a run.

    Args:
        report: The run, with its `progress` and `alive`.
        round_s: How long a round takes without faults. A dashed line shows that pace.
        path: The file to write.

    Raises:
        UserError: With code PLOT, without matplotlib or for an unknown file format.
    """
    goodput = (
        ""
        if report.goodput is None
        else f", goodput {report.goodput:.3f} (bound {report.goodput_bound or 1:.3f})"
    )
    title = f"{report.scenario}: {report.rounds_certified} rounds, {report.nodes} nodes{goodput}"
    figure, (rounds, nodes) = new_figure(title, HEIGHTS)
    until_s = report.virtual_seconds
    rounds.step(*_steps(report.progress, until_s), where="post", label="certified")
    rounds.plot((0.0, until_s), (0.0, until_s / round_s), "--", color="grey", label="no faults")
    rounds.set_ylabel("rounds")
    rounds.legend()
    nodes.fill_between(*_steps(report.alive, until_s), step="post", alpha=0.4)
    nodes.set_ylabel("live nodes")
    nodes.set_xlabel("virtual time (s)")
    for panel in (rounds, nodes):
        panel.set_xlim(0.0, until_s)
        panel.set_ylim(bottom=0)
    save_figure(figure, path)


def _steps(points: Sequence[tuple[float, int]], until_s: float) -> tuple[list[float], list[int]]:
    """The times and values of a line that keeps each value until the next."""
    times, values = [at for at, _ in points], [value for _, value in points]
    if not times or times[0] > 0:
        times, values = [0.0, *times], [0, *values]
    return [*times, until_s], [*values, values[-1]]
