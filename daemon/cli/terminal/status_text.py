"""A status as text: `hypergpud status`.

This module is pure and quick to import (no rich, no journal). Colour alone carries no meaning:
every level has a mark of its own. Times are ages, counted from the status' own `as_of`.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon.cli.terminal.columns import wrapped
from daemon.cli.terminal.ink import Ink, ago
from daemon.cli.terminal.limits_text import limit_lines
from daemon.cli.terminal.network_lines import reach_line, votes_line
from daemon.cli.terminal.rewards_text import coverage_lines, rewards_lines
from protocol.status import Status
from protocol.status.figures import (
    MISSING,
    compact,
    count,
    duration,
    loss,
    phase_words,
    quantity,
    rate,
    size,
    tail,
)
from protocol.status.join_line import join_line
from protocol.status.quorum_text import last_full_words, patience_words

MARKS = {"good": "✓", "info": "i", "warning": "!", "bad": "✕"}
OUTCOMES = {"counted": "✓", "observed": "●", "late": "◔", "lost": "✕", "idle": "–", "missed": "!"}
OUTCOMES |= {"averaged": "≈", "partial": "!", "apart": "!", "failed": "✕"}
MEANINGS = {
    "counted": "counted",
    "observed": "certified",
    "late": "late",
    "lost": "lost",
    "idle": "idle",
    "missed": "no certificate",
    # Outcomes of an engine without certificates.
    "averaged": "averaged, not certified",
    "partial": "averaged in part, not applied",
    "apart": "diverged from the majority",
    "failed": "not averaged",
}
# The voters, newcomers and audits that are named, and the events.
SHOWN_VOTERS, SHOWN_EVENTS = 8, 8
# All of these are in terminal columns: an event's age and mark, and the labels on the left.
MARGIN, LABEL = 13, 10
# Prose is wrapped here, or at the terminal's width if that is less.
WIDTH = 110
# The verdict goes on under its text, beside the mark.
INDENT = 2

_OUTCOME_STYLES = {
    "counted": "good",
    "observed": "info",
    "late": "warning",
    "lost": "bad",
    "idle": "dim",
    "missed": "warning",
}


def _lines(ink: Ink, label: str, lines: Sequence[str]) -> list[str]:
    head = ink("bold", label) + " " * (LABEL - len(label))
    return [
        (head if i == 0 else " " * LABEL) + line
        for i, line in enumerate(line for line in lines if line)
    ]


def _you(status: Status, ink: Ink, width: int) -> list[str]:
    you = status.you
    if not you.peer:
        return []
    if you.role == "observer":
        who = (
            f"{you.name or MISSING} ({tail(you.peer)}), an observer: it verifies and shows, it"
            f" does not train"
        )
        return _lines(ink, "You", [wrapped(who, width, LABEL), *you.addresses[:1]])
    doing = phase_words(you.phase) + (
        f": {you.phase_reason.rstrip('.')}" if you.phase_reason else ""
    )
    figures = [f"{rate(you.samples_per_second)} samples/s", f"{count(you.samples_total)} trained"]
    if you.samples_pending:
        figures.append(f"{count(you.samples_pending)} not certified yet")
    if you.batches_skipped:
        figures.append(f"{quantity(you.batches_skipped, 'batch', 'batches')} skipped")
    if you.samples_dropped:
        figures.append(f"{count(you.samples_dropped)} dropped")
    if you.loss is not None:
        figures.append(f"loss {loss(you.loss)}")
    if you.computing is not None:
        figures.append(f"computing {100 * you.computing:.0f}% of the time")
    if you.disk_hourly_bytes:
        figures.append(f"{size(you.disk_hourly_bytes)} written in the last hour")
    device = (
        you.device
        + (f", {quantity(you.worker_restarts, 'restart')}" if you.worker_restarts else "")
        if you.device
        else ""
    )
    where = [how_others_join(status)] if you.addresses and not status.run.rounds_certified else []
    name = f"{you.name or MISSING} ({tail(you.peer)})"
    prose = [wrapped(line, width, LABEL) for line in (name, doing, ", ".join(figures), device)]
    return _lines(ink, "You", [*prose, *where])


def _limits(status: Status, ink: Ink, width: int) -> list[str]:
    return _lines(ink, "Limits", [wrapped(line, width, LABEL) for line in limit_lines(status)])


def how_others_join(status: Status) -> str:
    """Return what others type to take part, or who tells them."""
    run, you = status.run, status.you
    if run.admits != "invite":
        return join_line(you)
    whose = "a friend joins with the line of" if run.owner == you.peer else "the owner invites with"
    return f"{whose}: hypergpud invite"


def _run(status: Status, ink: Ink, width: int) -> list[str]:
    run = status.run
    figures = [
        f"round {count(run.number)}",
        f"{count(run.rounds_certified)} certified",
        quantity(run.samples_certified, "sample"),
    ]
    if run.round_seconds is not None:
        figures.append(f"a round every {duration(run.round_seconds)}")
    losses = []
    if run.held_out is not None:
        scored = quantity(run.held_out_samples, "sample")
        scorers = quantity(run.held_out_scorers, "member")
        losses.append(
            f"loss {loss(run.held_out_first)} → {loss(run.held_out)}"
            f" (held out, round {count(run.held_out_round)}, {scored} scored by {scorers})"
        )
    if run.loss is not None:
        losses.append(f"claimed training loss {loss(run.loss_first)} → {loss(run.loss)}")
    task = f"{run.task}, {compact(run.parameters)} parameters" if run.parameters else run.task
    name = f"{run.name or MISSING} ({run.run[:8]})" if run.run else run.name or MISSING
    title = f"{name}: {task}" if task else name
    lines = (title, ", ".join(figures), run.next_round_reason, votes_line(run), ", ".join(losses))
    return _lines(ink, "Run", [wrapped(line, width, LABEL) for line in lines])


def _votes(status: Status, ink: Ink, width: int) -> list[str]:
    """Who votes, who is a newcomer and why, and what this node's audits found."""
    summary = status.membership
    if summary is None:
        return []
    names = {peer.peer: f"{peer.name} ({tail(peer.peer)})" for peer in status.peers if peer.name}
    names[status.you.peer] = "you"

    def name_of(peer: str) -> str:
        return names.get(peer, tail(peer))

    lines = []
    if summary.voters:
        voters = ", ".join(name_of(peer) for peer in summary.voters[:SHOWN_VOTERS])
        more = len(summary.voters) - SHOWN_VOTERS
        rest = f" and {more} more" if more > 0 else ""
        lines.append(f"{quantity(len(summary.voters), 'voter')}: {voters}{rest}")
    if full := last_full_words(summary, status.run.quorum, status.as_of):
        lines.append(f"the last full certificate: {full}")
    patience, why = patience_words(status.run.quorum)
    if patience:
        lines.append(f"patience: {patience} ({why})")
    lines += [
        f"newcomer {name_of(newcomer.peer)}: {newcomer.reason}"
        for newcomer in summary.newcomers[:SHOWN_VOTERS]
    ]
    if summary.clipped:
        lines.append(
            f"{summary.clipped} of {quantity(summary.contributors, 'contribution')} of the last"
            " round weighed less than their samples"
        )
    audits = [
        f"{name_of(audit.peer)} {100 * audit.score:.0f}%"
        + (", against" if audit.favours is False else ", for" if audit.favours else "")
        for audit in summary.audits[:SHOWN_VOTERS]
    ]
    if audits:
        lines.append(f"audits by this node: {'; '.join(audits)}")
    return _lines(ink, "Votes", [wrapped(line, width, LABEL) for line in lines])


def _network(status: Status, ink: Ink, width: int) -> list[str]:
    network, run = status.network, status.run
    sent, received = (
        network.control_sent + network.bulk_sent,
        network.control_received + network.bulk_received,
    )
    direct, punched, streams, relayed = (
        sum(peer.path == path for peer in status.peers)
        for path in ("direct", "punched", "libp2p", "relayed")
    )
    through = f"{punched} through both routers, " if punched else ""
    without = f"{streams} without a direct path for gradients, " if streams else ""
    together = (
        f"{quantity(run.nodes, 'node')} training, {rate(run.samples_per_second)} samples/s together"
    )
    links = f"{together}; {direct} direct, {through}{without}{relayed} through a relay"
    # The plan of the last round stays here while this node is alone.
    plan = f"last plan: {run.plan}{_how_far_off(run.prediction_error)}" if run.plan else ""
    refused = ", ".join(
        f"{count(number)} {reason}" for reason, number in status.refusals.items() if number
    )
    lines = [
        links,
        plan,
        f"sent {size(sent)}, received {size(received)}",
        f"refused: {refused}" if refused else "",
        reach_line(status.you.reach),
    ]
    return _lines(ink, "Network", [wrapped(line, width, LABEL) for line in lines])


def _how_far_off(error: float | None) -> str:
    return f" (predictions are {100 * error:.0f}% off)" if error is not None else ""


def _rounds(status: Status, ink: Ink, width: int) -> list[str]:
    if not status.rounds:
        return []
    strip = "".join(
        ink(_OUTCOME_STYLES.get(known.outcome, ""), OUTCOMES.get(known.outcome, "?"))
        for known in reversed(status.rounds)
    )
    used = {known.outcome for known in status.rounds}
    legend = ", ".join(
        f"{OUTCOMES[outcome]} {meaning}" for outcome, meaning in MEANINGS.items() if outcome in used
    )
    return _lines(
        ink,
        "Rounds",
        [strip, "\n".join(ink("dim", line) for line in wrapped(legend, width, LABEL).split("\n"))],
    )


def _events(status: Status, ink: Ink, width: int) -> list[str]:
    lines = []
    for event in status.events[:SHOWN_EVENTS]:
        age = ago(event.at, status.as_of)
        glyph = "·" if event.level == "info" else MARKS.get(event.level, " ")
        mark = ink(event.level, glyph)
        text = wrapped(event.text, width, LABEL + MARGIN)
        lines.append(f"{ink('dim', f'{age:<11}')}{mark} {text}")
    return _lines(ink, "Events", lines)


def _failure(status: Status, ink: Ink, width: int) -> list[str]:
    """The traceback of a task that fails. The verdict or the events say what follows from it."""
    return _lines(ink, "Failure", status.you.failure_trace)


def verdict_line(status: Status, color: bool, width: int | None = None) -> str:
    """Return the verdict with its mark, in lines of at most `width` columns; None: in one line."""
    text = f"{MARKS.get(status.level, 'i')} {status.verdict}"
    return Ink(color)(status.level, wrapped(text, width, INDENT) if width else text)


def status_text(status: Status, color: bool, width: int | None = None) -> str:
    """Return the whole status, the verdict first, without a final line feed.

    Prose takes at most `width` columns.
    """
    ink, room = Ink(color), min(width or WIDTH, WIDTH)
    shown = (_failure, _you, _limits, _run, _votes, _network, _rounds)
    parts = [part(status, ink, room) for part in shown]
    for label, found in (("Rewards", rewards_lines), ("Inference", coverage_lines)):
        parts.append(_lines(ink, label, [wrapped(line, room, LABEL) for line in found(status)]))
    blocks = [
        [verdict_line(status, color, min(width, WIDTH) if width else None)],
        *parts,
        _events(status, ink, room),
    ]
    return "\n".join("\n".join(block) for block in blocks if block)
