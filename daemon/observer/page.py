"""The page: one status as an HTML document that is complete without JavaScript.

All text from a status goes through `escape`. The page has no inline script or style, since the
Content-Security-Policy refuses them. The script fetches the page again and replaces what differs,
so that only this module renders a status.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from daemon.observer.chart import loss_chart
from daemon.observer.coverage_card import coverage_card
from daemon.observer.groups_card import groups_card
from daemon.observer.page_lists import (
    events_list,
    names_of,
    peers_table,
    refusals_line,
    rounds_strip,
    when,
)
from daemon.observer.rewards_card import rewards_card
from daemon.observer.time_charts import time_charts
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
from protocol.status.quorum_text import last_full_words, patience_words

LEVELS = {
    "good": ("✓", "Good"),
    "info": ("i", "For your information"),
    "warning": ("!", "Warning"),
    "bad": ("✕", "Bad"),
}
Row = tuple[str, str, str]
"""(label, figure, remark) of one line of a card."""


def _card(title: str, big: str, unit: str, rows: Iterable[Row]) -> str:
    lines = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(figure)}"
        + (f' <span class="dim">{escape(remark)}</span>' if remark else "")
        + "</dd></div>"
        for what, figure, remark in rows
    )
    return (
        f'<section class="card"><h2>{escape(title)}</h2><p class="big"><b>{escape(big)}</b>'
        f' <span class="dim">{escape(unit)}</span></p>'
        f"<dl>{lines}</dl></section>"
    )


def _run_card(status: Status) -> str:
    run = status.run
    falling = f"{loss(run.loss_first)} → {loss(run.loss)}" if run.loss is not None else MISSING
    held_out, scored = MISSING, "measured on held-out samples"
    if run.held_out is not None:
        held_out = f"{loss(run.held_out_first)} → {loss(run.held_out)}"
        scored = (
            f"held-out samples, first → round {count(run.held_out_round)},"
            f" scored by {run.held_out_scorers}"
        )
    rows: list[Row] = [
        ("Loss", held_out, scored),
        ("Claimed loss", falling, "first → now, of their own training data"),
        *_vote_rows(status),
        ("Samples certified", count(run.samples_certified), ""),
        ("Round time", duration(run.round_seconds), run.next_round_reason),
        (
            "Task",
            run.task or MISSING,
            f"{compact(run.parameters)} parameters" if run.parameters else "",
        ),
        (
            "State",
            run.state_digest[:12] or run.tip[:12] or MISSING,
            "digest" if run.state_digest else "certificate" if run.tip else "",
        ),
    ]
    certified = (
        quantity(run.rounds_certified, "round certified", "rounds certified")
        if run.engine != "hivemind"
        else "hivemind: not certified"
    )
    return _card("Run", f"Round {count(run.number)}", certified, rows)


def _vote_rows(status: Status) -> list[Row]:
    """Who votes, who is a newcomer, and what weighed less than its samples."""
    summary = status.membership
    if summary is None or not summary.voters:
        return []
    full = "the last certificate is degraded" if summary.is_degraded else "certified in full"
    rows: list[Row] = [("Voters", count(len(summary.voters)), full)]
    if last_full := last_full_words(summary, status.run.quorum, status.as_of):
        rows.append(("Last full certificate", last_full, ""))
    patience, why = patience_words(status.run.quorum)
    if patience:
        rows.append(("Patience", patience, why))
    if summary.newcomers:
        rows.append(("Newcomers", count(len(summary.newcomers)), summary.newcomers[0].reason))
    if summary.clipped:
        rows.append(("Clipped", count(summary.clipped), f"of {summary.contributors} contributions"))
    against = sum(audit.favours is False for audit in summary.audits)
    if summary.audits:
        rows.append(("Audited", count(len(summary.audits)), f"{against} against, by this node"))
    return rows


def _swarm_card(status: Status) -> str:
    run, network = status.run, status.network
    direct = sum(peer.path in {"direct", "libp2p"} for peer in status.peers)
    relayed = sum(peer.path == "relayed" for peer in status.peers)
    error = run.prediction_error
    rows: list[Row] = [
        (
            "Groups",
            run.plan or MISSING,
            f"predictions {100 * error:.0f}% off" if error is not None else "",
        ),
        ("Speed", rate(run.samples_per_second), "samples/s in total"),
        ("Links", f"{direct} direct", f"{relayed} through a relay"),
        (
            "Sent",
            size(network.control_sent + network.bulk_sent),
            f"of which gradients: {size(network.bulk_sent)}",
        ),
        (
            "Received",
            size(network.control_received + network.bulk_received),
            f"of which gradients: {size(network.bulk_received)}",
        ),
    ]
    return _card(
        "Swarm", count(run.nodes), "node training" if run.nodes == 1 else "nodes training", rows
    )


def _you_card(status: Status) -> str:
    you = status.you
    if you.role == "observer":
        rows: list[Row] = [
            ("Peer id", tail(you.peer) or MISSING, you.name),
            ("Connections", count(status.network.connections), ""),
            ("Checks", quantity(status.run.rounds_certified, "certificate"), "verified here"),
            ("Version", you.version or MISSING, ""),
        ]
        return _card("This observer", "Watching", "no GPU, no wallet", rows)
    missed = f"{you.rounds_late} late, {you.rounds_lost} lost, {you.rounds_idle} idle"
    rows = [
        ("Doing", phase_words(you.phase), you.phase_reason),
        ("Rounds counted", count(you.rounds_counted), missed),
        ("Samples", count(you.samples_total), f"{count(you.samples_pending)} not certified yet"),
        (
            "Computing",
            f"{100 * you.computing:.0f}%" if you.computing is not None else MISSING,
            "of the last round's time",
        ),
        (
            "Device",
            you.device or MISSING,
            quantity(you.worker_restarts, "restart") if you.worker_restarts else "",
        ),
        ("Rewards", status.rewards, ""),
    ]
    return _card(
        f"You · {you.name or tail(you.peer)}" if you.peer else "You",
        rate(you.samples_per_second),
        "samples/s",
        rows,
    )


def join_line(status: Status) -> str:
    """Return what a person types to take part; empty where no node can be named."""
    if status.run.admits != "open":
        return ""
    for peer in status.peers:
        if peer.role == "node" and peer.connected and peer.address:
            named = "" if "/p2p/" in peer.address else f"/p2p/{peer.peer}"
            return f"hypergpud start --join {peer.address}{named}"
    own = status.you.addresses if status.you.role == "node" else ()
    return f"hypergpud start --join {own[0]}" if own else ""


def _join_card(status: Status) -> str:
    """Say how a visitor takes part in the run."""
    if not status.run.run:
        return ""
    line = join_line(status)
    if line:
        how = (
            f'<p><code id="join-command">{escape(line)}</code> <button type="button"'
            ' data-copies="join-command">Copy</button></p>'
        )
    elif status.run.admits == "open":
        how = '<p class="dim">No node of the run is connected at the moment.</p>'
    else:
        how = (
            "<p>This run admits invited peers. Its owner prints a line with"
            " <code>hypergpud invite</code>; a friend types that line.</p>"
        )
    return f'<section class="card join"><h2>Join this run</h2>{how}</section>'


def page_html(status: Status) -> str:
    """Render the whole document."""
    glyph, meaning = LEVELS.get(status.level, LEVELS["info"])
    name = status.run.name or "HyperGPU"
    title = f"{name} · round {status.run.number}" if status.run.rounds_certified else name
    chart = loss_chart(status.curve, status.held_out, status.reference, status.moves)
    names = names_of(status)
    run_id = (
        f'<span class="dim mono" title="run id'
        f' {escape(status.run.run)}">{escape(status.run.run[:8])}</span>'
        if status.run.run
        else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport"
content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{escape(title)} · HyperGPU</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml"><link rel="stylesheet"
href="/static/page.css">
<script src="/static/page.js" defer></script></head>
<body><header><div class="brand"><img src="/static/icon.svg" alt="" width="28"
height="28"><strong>HyperGPU</strong></div>
<p class="run"><span>{escape(status.run.name or "no run yet")}</span> {run_id}</p>
<p class="asof" id="contact"
data-level="good"><span>as of {when(status.as_of)} UTC</span></p></header>
<section class="card invitation" id="invitation" hidden><h2>Invite a friend</h2>
<p><code id="invitation-command"></code>
<button type="button" id="invitation-copy">Copy</button></p>
<p class="dim" id="invitation-terms"></p></section>
<main id="main">
<section class="verdict {escape(status.level)}" aria-live="polite"><span class="mark"
aria-hidden="true">{glyph}</span>
<h1><span class="hidden">{meaning}: </span>{escape(status.verdict)}</h1></section>
{_join_card(status)}
<div class="cards">{_run_card(status)}{_swarm_card(status)}{_you_card(status)}</div>
{rewards_card(status)}
<div class="pair"><section class="card">{chart}</section>
<section class="card events"><h2>Last events</h2>{events_list(status)}</section></div>
<section class="card charts"><h2>Over time</h2>
{time_charts(status.points, status.moves, names)}</section>
<section class="card"><h2>Last rounds</h2>{rounds_strip(status)}</section>
{groups_card(status, names)}{coverage_card(status)}
<section class="card"><h2>Peers</h2>{peers_table(status)}</section>
<p class="refusals">{refusals_line(status)}</p>
</main>
<footer><a href="/api/v1/status">status</a> <a href="/api/v1/peers">peers</a> <a
href="/api/v1/rounds">rounds</a> <a href="/api/docs">API</a>
<a href="/metrics">metrics</a> <span class="dim">{escape(status.you.version)}</span></footer>
</body></html>
"""
