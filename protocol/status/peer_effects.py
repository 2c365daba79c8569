"""How events of peers change the state behind a status, and which peers are kept."""

from __future__ import annotations

from msgspec.structs import replace

from protocol import journal
from protocol.status.figures import clean, duration, finite, natural, whole
from protocol.status.peer_records import KEPT_LOST, KEPT_PEERS, LOST_KEPT_S, PeerSummary
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState


def _keep_peer(state: StatusState, peer: PeerSummary) -> None:
    """Put a peer at the end of the kept ones.

    If there are too many, the peer that was not heard from for longest is dropped, unconnected ones
    first.
    """
    state.peers.pop(peer.peer, None)
    state.lost.pop(peer.peer, None)
    if len(state.peers) >= KEPT_PEERS:
        oldest = next(
            (known.peer for known in state.peers.values() if not known.connected),
            next(iter(state.peers)),
        )
        del state.peers[oldest]
    state.peers[peer.peer] = peer


def _stranger(peer: str) -> PeerSummary:
    return PeerSummary(
        peer=peer,
        name="",
        role="",
        path="",
        address="",
        rtt_s=None,
        number=0,
        tip="",
        phase="",
        samples=0,
        loss=None,
        samples_per_second=0.0,
        device="",
        last_seen=0.0,
        connected=False,
    )


def peer_up(state: StatusState, event: journal.PeerUp) -> None:
    if event.peer == state.you.peer:
        return
    known = state.peers.get(event.peer) or _stranger(clean(event.peer, MAX_NAME_CHARS))
    address = clean(event.address, MAX_TEXT_CHARS)
    _keep_peer(
        state,
        replace(
            known,
            path=clean(event.path, 16),
            address=address,
            connected=True,
            last_seen=natural(event.at),
            lost_at=0.0,
            lost_reason="",
        ),
    )


def peer_down(state: StatusState, event: journal.PeerDown) -> None:
    known = state.peers.get(event.peer)
    if known is None:
        return
    # A peer that never sent a beacon was no member.
    if not known.tip:
        del state.peers[event.peer]
        return
    state.peers[event.peer] = replace(
        known,
        path="",
        rtt_s=None,
        connected=False,
        quality="",
        quality_reason="",
        lost_at=natural(event.at),
        lost_reason=clean(event.reason, MAX_TEXT_CHARS),
    )


def peer_report(state: StatusState, event: journal.PeerReport) -> None:
    if event.peer == state.you.peer:
        return
    rtt_s = finite(event.rtt_s)
    reputation = state.reputations.of(event.peer, natural(event.at))
    peer = PeerSummary(
        peer=clean(event.peer, MAX_NAME_CHARS),
        name=clean(event.name, MAX_NAME_CHARS),
        role=clean(event.role, MAX_NAME_CHARS),
        path=clean(event.path, 16),
        address=clean(event.address, MAX_TEXT_CHARS),
        rtt_s=natural(rtt_s) if rtt_s is not None else None,
        jitter_s=natural(event.jitter_s) if event.jitter_s is not None else None,
        loss_share=natural(event.loss_share, 1.0) if event.loss_share is not None else None,
        bits_per_second=whole(event.bits_per_second),
        quality=clean(event.quality, 16),
        quality_reason=clean(event.quality_reason, MAX_TEXT_CHARS),
        standing=clean(event.standing, 16),
        standing_reason=clean(event.standing_reason, MAX_TEXT_CHARS),
        number=whole(event.number),
        tip=clean(event.tip, MAX_NAME_CHARS),
        phase=clean(event.phase, MAX_NAME_CHARS),
        samples=whole(event.samples),
        loss=finite(event.loss),
        samples_per_second=natural(event.samples_per_second, 1e12),
        device=clean(event.device, MAX_TEXT_CHARS),
        last_seen=natural(event.at),
        connected=bool(event.path),
        registration=known.registration if (known := state.peers.get(event.peer)) else "",
        reputation=reputation.figure,
        pool=reputation.pool,
        alert=reputation.alert
        or (
            f"it has another task: {other}" if (other := state.other_tasks.get(event.peer)) else ""
        ),
    )
    _keep_peer(state, peer)


def peer_forgotten(state: StatusState, event: journal.PeerForgotten) -> None:
    state.other_tasks.pop(event.peer, None)
    known = state.peers.pop(event.peer, None)
    if known is None or known.role != "node":
        return
    now = natural(event.at)
    lost = known
    if not known.lost_at:
        silent = f"it was silent for {duration(event.silent_s)}"
        lost = replace(known, lost_at=now, lost_reason=silent, connected=False, path="", rtt_s=None)
    state.lost[event.peer] = lost
    for peer, one in list(state.lost.items()):
        if len(state.lost) > KEPT_LOST or now - one.lost_at > LOST_KEPT_S:
            del state.lost[peer]


def peer_registered(state: StatusState, event: journal.PeerRegistered) -> None:
    known = state.peers.get(event.peer)
    if known is not None:
        state.peers[event.peer] = replace(known, registration=clean(event.state, 16))
