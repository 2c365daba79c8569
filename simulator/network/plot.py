"""Round time and goodput against group size: bars for the terminal, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simulator.network.comparison import ADAPTIVE, FIXED, PolicyRecord
from simulator.playback.figure import new_figure, save_figure

# The longest bar, in characters.
BAR = 40


def bars(records: Sequence[PolicyRecord]) -> str:
    """A bar for each policy: the shortest is the best."""
    most = max(record.round_seconds_median for record in records)
    lines = [
        f"{'policy':<12} {'group':>5} {'round s':>9} {'predicted':>9} {'far MB':>9} {'goodput':>8}"
    ]
    for record in records:
        predicted = (
            "-"
            if record.predicted_seconds_median is None
            else f"{record.predicted_seconds_median:.2f}"
        )
        bar = "█" * max(1, round(BAR * record.round_seconds_median / most))
        lines.append(
            f"{record.policy:<12} {record.group_size_median:>5g}"
            f" {record.round_seconds_median:>9.2f} {predicted:>9}"
            f" {record.inter_region_bytes / 1e6:>9.0f} {record.goodput:>8.3f} {bar}"
        )
    return "\n".join(lines)


def plot_records(records: Sequence[PolicyRecord], path: Path) -> None:
    """Plot round time and goodput over the fixed sizes. Dashed lines show the adaptive policy.

    Raises:
        UserError: With code PLOT, without matplotlib or for an unknown file format.
    """
    fixed = [record for record in records if record.policy != ADAPTIVE]
    adaptive = next((record for record in records if record.policy == ADAPTIVE), None)
    one = records[0]
    title = f"{one.profile}, {one.nodes} nodes, seed {one.seed}"
    figure, (times, goodput) = new_figure(title, (1.0, 1.0))
    sizes = [record.policy.removeprefix(FIXED) for record in fixed]
    times.plot(sizes, [record.round_seconds_median for record in fixed], "o-")
    times.set_ylabel("seconds per round")
    goodput.plot(sizes, [record.goodput for record in fixed], "o-")
    goodput.set_ylabel("share of time computing")
    goodput.set_xlabel("group size")
    if adaptive is not None:
        times.axhline(adaptive.round_seconds_median, linestyle="--", label=ADAPTIVE)
        goodput.axhline(adaptive.goodput, linestyle="--", label=ADAPTIVE)
        times.legend()
    for panel in (times, goodput):
        panel.set_ylim(bottom=0)
    save_figure(figure, path)
