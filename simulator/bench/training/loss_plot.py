"""Plots held-out loss against time, one line for each arm and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simulator.bench.training.run_record import RunRecord, label
from simulator.playback.figure import new_figure, save_figure


def plot_losses(records: Sequence[RunRecord], path: Path) -> None:
    """Plot the runs that count.

    Raises:
        UserError: With code PLOT, without matplotlib or for an unknown file format.
    """
    first = records[0]
    title = (
        f"byte GPT, {first.parameters:,} parameters, {first.peers} peers, {first.rate},"
        f" {first.rtt_ms:g} ms"
    )
    figure, (panel,) = new_figure(title, (1.0,))
    arms = list(dict.fromkeys(label(record) for record in records))
    shown: set[str] = set()
    for record in records:
        name = label(record)
        if record.void:
            continue
        panel.plot(
            [point.at_s for point in record.points],
            [point.loss for point in record.points],
            color=f"C{arms.index(name)}",
            # One entry of the legend for all seeds of an arm.
            label=None if name in shown else name,
        )
        shown.add(name)
    panel.set_xlabel("time (s)")
    panel.set_ylabel("held-out loss (nats per byte)")
    panel.set_ylim(top=min(4.0, panel.get_ylim()[1]))
    panel.legend()
    save_figure(figure, path)
