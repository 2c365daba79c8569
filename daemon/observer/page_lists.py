"""The lists of the page as HTML: the last rounds, the peers, the last events, the refusals.

Every text is escaped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from protocol.network.peer_health import TRUSTED
from protocol.status import PeerSummary, RoundSummary, Status
from protocol.status.figures import (
    MISSING,
    count,
    duration,
    loss,
    phase_words,
    quantity,
    rate,
    tail,
)
from protocol.status.membership import membership_words
from protocol.status.peer_records import MembershipSummary
from protocol.status.work_shares import WorkShare, work_shares

# Rows of the table; /api/v1/peers has all peers.
SHOWN_PEERS = 200
# Contributors of a round that the strip names.
SHOWN_NAMES = 12
# The last second that a `datetime` can show.
LATEST = 253402300799.0

OUTCOMES = {
    "counted": ("✓", "counted"),
    "observed": ("●", "certified"),
    "late": ("◔", "late"),
    "lost": ("✕", "lost"),
    "idle": ("–", "nothing to offer"),
    "missed": ("!", "no certificate"),
    "averaged": ("≈", "averaged, not certified"),
    "partial": ("!", "averaged in part, not applied"),
    "apart": ("!", "diverged from the majority"),
    "failed": ("✕", "not averaged"),
}
_LEVELS = {
    "good": ("✓", "good"),
    "info": ("·", ""),
    "warning": ("!", "warning"),
    "bad": ("✕", "bad"),
}


def when(at: float) -> str:
    """Return a time of day in HTML; the script turns it into "12 s ago"."""
    moment = datetime.fromtimestamp(min(max(at, 0.0), LATEST), UTC)
    iso = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f'<time datetime="{iso}" title="{moment:%Y-%m-%d %H:%M:%S} UTC">{moment:%H:%M:%S}</time>'


def names_of(status: Status) -> dict[str, str]:
    """Return the names of all known peers; the own one is marked."""
    names = {peer.peer: peer.name for peer in (*status.lost, *status.peers)}
    return names | {status.you.peer: f"{status.you.name} (you)" if status.you.name else "you"}


def _described(known: RoundSummary, names: dict[str, str]) -> str:
    """Return a round in one or two sentences, for the tooltip and for screen readers."""
    _, meaning = OUTCOMES.get(known.outcome, ("?", known.outcome))
    head = f"Round {known.number}{f' (try {known.view + 1})' if known.view else ''}: {meaning}"
    if known.outcome != "missed":
        head += (
            f", {len(known.contributors)} of {quantity(len(known.members), 'member')},"
            f" {quantity(known.samples, 'sample')}"
        )
        if known.held_out is not None:
            head += f", loss {loss(known.held_out)}"
        if known.loss is not None:
            head += f", claimed loss {loss(known.loss)}"
    parts = [head]
    if known.contributors:
        named = ", ".join(
            names.get(peer) or tail(peer) for peer in known.contributors[:SHOWN_NAMES]
        )
        more = len(known.contributors) - SHOWN_NAMES
        parts.append(f"Counted: {named}{f' and {more} more' if more > 0 else ''}")
    if known.reason and len(known.contributors) < len(known.members):
        parts.append(known.reason.rstrip("."))
    return ". ".join(parts) + "."


def rounds_strip(status: Status) -> str:
    """Return the last rounds, oldest first; each outcome has a shape, a colour and a sentence."""
    if not status.rounds:
        return '<p class="empty">No round has been certified yet.</p>'
    names = names_of(status)
    cells = []
    for known in reversed(status.rounds):
        glyph, _ = OUTCOMES.get(known.outcome, ("?", ""))
        told = escape(_described(known, names))
        cells.append(
            f'<li class="{escape(known.outcome)}" tabindex="0" title="{told}"><span'
            f' aria-hidden="true">{glyph}</span>'
            f'<span class="told">{told}</span></li>'
        )
    used = {known.outcome for known in status.rounds}
    legend = "".join(
        f'<li class="{outcome}"><span aria-hidden="true">{glyph}</span> {meaning}</li>'
        for outcome, (glyph, meaning) in OUTCOMES.items()
        if outcome in used
    )
    newest = escape(_described(status.rounds[0], names))
    return (
        f'<ol class="strip">{"".join(cells)}</ol><p class="newest">{newest}</p><ul'
        f' class="legend">{legend}</ul>{_rounds_table(status)}'
    )


def _rounds_table(status: Status) -> str:
    rows = "".join(
        f"<tr><td>{known.number}</td><td>{when(known.at)}</td>"
        f"<td>{escape(OUTCOMES.get(known.outcome, ('?', known.outcome))[1])}</td>"
        f"<td>{len(known.contributors)} of"
        f" {len(known.members)}</td><td>{count(known.samples)}</td><td>{loss(known.held_out)}</td>"
        f"<td>{loss(known.loss)}</td>"
        f"<td>{escape(_phases(known))}</td></tr>"
        for known in status.rounds
    )
    heads = "".join(
        f"<th scope=col>{head}</th>"
        for head in (
            "Round",
            "When",
            "Outcome",
            "Counted",
            "Samples",
            "Loss",
            "Claimed loss",
            "Phases",
        )
    )
    return (
        "<details><summary>The same as a table</summary><div class=wide><table class=figures>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _phases(known: RoundSummary) -> str:
    return (
        ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in known.phase_seconds.items())
        or MISSING
    )


def _path(peer: PeerSummary) -> str:
    glyph, word = {
        "direct": ("●", "direct"),
        "libp2p": ("◍", "libp2p"),
        "relayed": ("◐", "relayed"),
    }.get(peer.path, ("○", "none"))
    if peer.lost_at:
        reason = f": {escape(peer.lost_reason)}" if peer.lost_reason else ""
        lost = f'<span aria-hidden="true">✕</span> lost{reason}, {when(peer.lost_at)}'
        return f'<span class="path lost">{lost}</span>'
    return f'<span class="path {word}"><span aria-hidden="true">{glyph}</span> {word}</span>'


def _standing(peer: PeerSummary) -> str:
    """Return the standing of a peer, with its reason in plain sight unless the peer is trusted."""
    if not peer.standing:
        return MISSING
    if peer.standing == TRUSTED:
        return f'<span title="{escape(peer.standing_reason)}">{TRUSTED}</span>'
    return f"{escape(peer.standing)}: {escape(peer.standing_reason)}"


def _share(work: WorkShare | None) -> str:
    """Return a peer's part in the last rounds, with the counted and missed ones on hover."""
    if work is None:
        return MISSING
    told = f"{quantity(work.counted, 'round')} counted, {work.missed} late or lost"
    missed = f" ({work.missed} not counted)" if work.missed else ""
    return f'<span title="{told}">{100 * work.share:.0f}%{missed}</span>'


def _peer_row(
    peer: PeerSummary, membership: MembershipSummary | None, work: WorkShare | None
) -> str:
    votes = membership_words(membership, peer.peer) if membership and peer.role == "node" else ""
    role = (
        ""
        if peer.role == "node"
        else f' <span class="tag">{escape(peer.role or "stranger")}</span>'
    )
    device = f' title="{escape(peer.device)}"' if peer.device else ""
    training = peer.role == "node"
    cells = (
        ("Path", _path(peer)),
        ("RTT", escape(duration(peer.rtt_s))),
        (
            "Link",
            f'<span title="{escape(peer.quality_reason)}">{escape(peer.quality)}</span>'
            if peer.quality
            else MISSING,
        ),
        ("Votes", escape(votes) or MISSING),
        ("Standing", _standing(peer)),
        ("Doing", escape(phase_words(peer.phase)) or MISSING),
        ("Share", _share(work)),
        ("Round", count(peer.number) if peer.tip else MISSING),
        ("Loss", loss(peer.loss) if training else MISSING),
        ("Samples/s", rate(peer.samples_per_second) if training else MISSING),
        ("Last seen", when(peer.last_seen)),
    )
    identity = (
        f'<span class="dim mono" title="{escape(peer.peer)}">{escape(tail(peer.peer))}</span>'
    )
    name = f'<span class="name">{escape(peer.name) or "unnamed"}</span> {identity}'
    data = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells)
    gone = ' class="gone"' if peer.lost_at else ""
    return f'<tr{gone}><th scope="row"{device}>{name}{role}</th>{data}</tr>'


def peers_table(status: Status) -> str:
    """Return the peers, one in each row, connected ones first, and those lost lately last."""
    known = (*status.peers, *status.lost)
    if not known:
        return '<p class="empty">No peer is known at the moment.</p>'
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in (
            "Peer",
            "Path",
            "RTT",
            "Link",
            "Votes",
            "Standing",
            "Doing",
            "Share",
            "Round",
            "Loss",
            "Samples/s",
            "Last seen",
        )
    )
    work = work_shares(status.rounds)
    rows = "".join(
        _peer_row(peer, status.membership, work.get(peer.peer)) for peer in known[:SHOWN_PEERS]
    )
    rest = len(known) - SHOWN_PEERS
    more = (
        f'<p class="dim">and {count(rest)} more in <a href="/api/v1/peers">/api/v1/peers</a></p>'
        if rest > 0
        else ""
    )
    return (
        f'<div class="wide"><table'
        f' class="peers"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{more}'
    )


def events_list(status: Status) -> str:
    """Return the last events, newest first."""
    if not status.events:
        return '<p class="empty">Nothing has happened yet.</p>'
    lines = []
    for event in status.events:
        glyph, meaning = _LEVELS.get(event.level, _LEVELS["info"])
        spoken = f'<span class="hidden">{meaning}: </span>' if meaning else ""
        mark = f'<span class="glyph" aria-hidden="true">{glyph}</span>'
        lines.append(
            f'<li class="{escape(event.level)}">{mark}<p>{spoken}{escape(event.text)}'
            f"</p>{when(event.at)}</li>"
        )
    return f'<ol tabindex="0" aria-label="Last events, newest first">{"".join(lines)}</ol>'


def refusals_line(status: Status) -> str:
    """One line that counts the refusals of data from other peers, by reason."""
    refused = {reason: number for reason, number in status.refusals.items() if number}
    if not refused:
        return "Nothing from outside was refused."
    return (
        "Refused from outside: "
        + escape(", ".join(f"{count(number)} {reason}" for reason, number in refused.items()))
        + "."
    )
