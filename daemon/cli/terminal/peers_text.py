"""The peers of a status as a table: `hypergpud peers`. Pure, and quick to import."""

from __future__ import annotations

from daemon.cli.terminal.columns import columns, cut, fitted
from daemon.cli.terminal.ink import Ink, ago
from protocol.network.peer_health import TRUSTED
from protocol.status import PeerSummary, Status
from protocol.status.figures import MISSING, count, duration, phase_words, rate, tail

# Columns between two cells, and of a cell that is cut.
GAP = 2
MIN_CELL = 8


def _peer_cells(peer: PeerSummary, now: float) -> tuple[str, ...]:
    return (
        peer.name or "unnamed",
        tail(peer.peer),
        peer.path or "none",
        duration(peer.rtt_s),
        peer.quality or MISSING,
        MISSING if peer.standing in ("", TRUSTED) else f"{peer.standing}: {peer.standing_reason}",
        peer.role or "stranger",
        phase_words(peer.phase) or MISSING,
        f"round {count(peer.number)}" if peer.tip else MISSING,
        f"{rate(peer.samples_per_second)}/s" if peer.role == "node" else MISSING,
        (f"{peer.reputation}" if peer.reputation is not None else "new")
        + (" !" if peer.alert else "")
        if peer.role == "node"
        else MISSING,
        peer.pool or MISSING,
        peer.registration or MISSING,
        ago(peer.last_seen, now),
    )


def peers_text(status: Status, color: bool, width: int | None = None) -> str:
    """One line for each peer, connected ones first, without a final line feed.

    Cells are cut where a line would be wider than `width`.
    """
    ink = Ink(color)
    if not status.peers:
        return "\n".join(["No peer is known at the moment.", *lost_lines(status, ink)])
    heads = (
        "PEER",
        "ID",
        "PATH",
        "RTT",
        "LINK",
        "STANDING",
        "ROLE",
        "DOING",
        "ROUND",
        "SAMPLES",
        "REPUTATION",
        "POOL",
        "REGISTERED",
        "LAST SEEN",
    )
    cells = [_peer_cells(peer, status.as_of) for peer in status.peers]
    # A column without any value is left out: a run without a chain has no wallets.
    shown = [i for i in range(len(heads)) if any(row[i] != MISSING for row in cells)]
    rows = [tuple(row[i] for i in shown) for row in (heads, *cells)]
    widths = [max(columns(row[i]) for row in rows) for i in range(len(shown))]
    if width is not None:
        widths = fitted(widths, width, GAP, MIN_CELL)
        rows = [
            tuple(cut(cell, wide) for cell, wide in zip(row, widths, strict=True)) for row in rows
        ]
    gap = " " * GAP
    lines = [
        gap.join(
            cell + " " * (wide - columns(cell)) for cell, wide in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    styles = ["bold", *("" if peer.connected else "dim" for peer in status.peers)]
    alerts = [
        f"! {peer.name or tail(peer.peer)}: {peer.alert}" for peer in status.peers if peer.alert
    ]
    return "\n".join(
        [
            *(ink(style, line) for style, line in zip(styles, lines, strict=True)),
            *alerts,
            *lost_lines(status, ink),
        ]
    )


def lost_lines(status: Status, ink: Ink) -> list[str]:
    """One line for each peer that was lost within the last hour, with the reason."""
    gone = [*(peer for peer in status.peers if peer.lost_at), *status.lost]
    return [
        ink(
            "dim",
            f"✕ {peer.name or tail(peer.peer)} was lost {ago(peer.lost_at, status.as_of)}"
            + (f": {peer.lost_reason}" if peer.lost_reason else ""),
        )
        for peer in gone
    ]
