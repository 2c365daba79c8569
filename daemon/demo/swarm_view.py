"""The live view of a swarm on one machine, which `hypergpud demo` shows while it runs.

It has a row for each daemon, the last rounds with their members, and the loss as a line of blocks.
Pure: it turns statuses into a rich renderable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from protocol.status import RoundSummary, Status
from protocol.status.figures import (
    MISSING,
    count,
    duration,
    loss,
    phase_words,
    quantity,
    rate,
    size,
)

SHOWN_ROUNDS = 8
SPARK_COLUMNS = 40
SPARKS = "▁▂▃▄▅▆▇█"
PARTS = {"contributor": ("●", "green"), "member": ("○", "yellow"), "absent": ("·", "dim")}
_STYLES = {"good": "green", "info": "cyan", "warning": "yellow", "bad": "red"}

Statuses = Mapping[str, Status | None]


def sparkline(values: Sequence[float], width: int = SPARK_COLUMNS) -> str:
    """Return the values as a line of at most `width` blocks, scaled from the lowest to the highest.

    Each block shows the last value of an equal part of the values.
    """
    if not values:
        return ""
    shown = min(width, len(values))
    picked = [values[(i + 1) * len(values) // shown - 1] for i in range(shown)]
    low, high = min(picked), max(picked)
    if high == low:
        return SPARKS[0] * shown
    return "".join(
        SPARKS[round((value - low) / (high - low) * (len(SPARKS) - 1))] for value in picked
    )


def furthest(statuses: Statuses) -> Status | None:
    """Return the status of the daemon that has verified the most; None while no daemon answers."""
    known = [status for status in statuses.values() if status is not None]
    return max(
        known, key=lambda status: (status.run.number, status.run.rounds_certified), default=None
    )


def _summary(statuses: Statuses, best: Status) -> Text:
    """Two lines: the progress of training, and what was transferred for it."""
    run = best.run
    nodes = [
        status for status in statuses.values() if status is not None and status.you.role == "node"
    ]
    speed = sum(status.you.samples_per_second for status in nodes)
    sent = sum(status.network.control_sent + status.network.bulk_sent for status in nodes)
    text = Text()
    text.append(f"round {count(run.number)}", style="bold")
    if run.held_out is not None:
        text.append("   loss ")
        text.append(f"{loss(run.held_out_first)} → {loss(run.held_out)} ", style="bold")
    if run.loss is not None:
        text.append("   claimed loss ")
        text.append(f"{loss(run.loss_first)} → {loss(run.loss)} ", style="bold")
        text.append(sparkline([point.loss for point in best.curve]), style="magenta")
    text.append(f"\n{rate(speed)} samples/s", style="bold")
    text.append(f"   {quantity(run.samples_certified, 'sample')} certified   {size(sent)} sent")
    if run.round_seconds is not None:
        text.append(f"   a round every {duration(run.round_seconds)}")
    return text


def _peer_rows(statuses: Statuses, best: Status | None) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for head in ("peer", "doing", "round", "loss", "samples/s", "counted", "links", "state"):
        table.add_column(
            head, justify="left" if head in ("peer", "doing", "state") else "right", no_wrap=True
        )
    for name, status in statuses.items():
        if status is None:
            table.add_row(name, Text("not answering", style="red"), *[MISSING] * 6)
            continue
        you, run = status.you, status.run
        agrees = best is not None and run.number == best.run.number and run.tip == best.run.tip
        # The digest that this daemon computed. An observer computes none.
        digest = run.state_digest[:8] or MISSING
        doing = phase_words(you.phase) if you.role == "node" else "observing"
        own = you.rounds_counted + you.rounds_late + you.rounds_lost
        table.add_row(
            Text(name),
            Text(
                doing,
                style=_STYLES.get(status.level, "") if status.level in ("warning", "bad") else "",
            ),
            count(run.number),
            loss(you.loss if you.role == "node" else run.loss),
            rate(you.samples_per_second) if you.role == "node" else MISSING,
            f"{you.rounds_counted} of {own}" if you.role == "node" else MISSING,
            count(sum(peer.connected for peer in status.peers)),
            Text(digest, style="green" if agrees else "dim"),
        )
    return table


def _part(known: RoundSummary, peer: str) -> Text:
    glyph, style = PARTS[
        "contributor"
        if peer in known.contributors
        else "member"
        if peer in known.members
        else "absent"
    ]
    return Text(glyph, style=style)


def _round_rows(statuses: Statuses, best: Status) -> Table:
    who = {
        name: status.you.peer
        for name, status in statuses.items()
        if status is not None and status.you.role == "node"
    }
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("round", justify="right", no_wrap=True)
    table.add_column(Text("who was in it"), no_wrap=True)
    for head in ("samples", "loss", "certificate"):
        table.add_column(head, justify="right" if head != "certificate" else "left", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True)
    for known in best.rounds[:SHOWN_ROUNDS]:
        if known.outcome == "missed":
            again = Text(f"try {known.view + 1} ended without a certificate", style="yellow")
            table.add_row(
                count(known.number),
                again,
                "",
                "",
                "",
                Text(known.reason, style="dim", overflow="ellipsis"),
            )
            continue
        parts = Text(" ").join(_part(known, peer) for peer in who.values())
        part = Text(quantity(len(known.contributors), "peer"), style="dim")
        table.add_row(
            count(known.number),
            parts,
            count(known.samples),
            loss(known.loss),
            known.certificate[:8],
            part,
        )
    return table


def live_view(statuses: Statuses, *, title: str = "HyperGPU", note: str = "") -> RenderableType:
    """Render the view.

    `statuses` maps a daemon's name to its status; None while the daemon does not answer. `note` is
    the last line.
    """
    best = furthest(statuses)
    if best is None:
        waiting = Text(f"Starting {quantity(len(statuses), 'daemon')} …", style="dim")
        return Panel(
            Group(waiting, Text(note, style="dim")) if note else waiting,
            title=title,
            title_align="left",
            border_style="dim",
        )
    parts: list[RenderableType] = [_summary(statuses, best), Text(), _peer_rows(statuses, best)]
    if best.rounds:
        parts += [Text(), _round_rows(statuses, best)]
        legend = Text("● counted   ○ in the plan, not counted   · not in it", style="dim")
        parts.append(legend)
    troubled = [
        (name, status)
        for name, status in statuses.items()
        if status is not None and status.level in ("warning", "bad")
    ]
    for name, status in troubled[:3]:
        parts.append(Text(f"{name}: {status.verdict}", style=_STYLES[status.level]))
    if note:
        parts += [Text(), Text(note, style="bold")]
    return Panel(
        Group(*parts), title=Text(title), title_align="left", border_style="dim", padding=(0, 1)
    )
