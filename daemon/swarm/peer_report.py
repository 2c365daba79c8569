"""The journal's events about a peer, from its beacon and from the measurements of its link."""

from __future__ import annotations

from daemon.swarm.link_estimate import LinkEstimate
from protocol.identity import PeerId
from protocol.journal import PeerReport, PeerScored
from protocol.messages.beacon import Beacon, score_of
from protocol.ports.network import Link


def peer_report(
    peer: PeerId, beacon: Beacon, link: Link | None, estimate: LinkEstimate
) -> PeerReport:
    """Describe a peer. `link` is None without a connection to it."""
    return PeerReport(
        peer=peer,
        name=beacon.name,
        role=beacon.role,
        number=beacon.number,
        tip=beacon.tip.hex(),
        phase=beacon.phase,
        samples=beacon.samples,
        loss=beacon.loss,
        samples_per_second=beacon.samples_per_second,
        device=beacon.device,
        path=link.path if link else "",
        address=link.address if link else "",
        rtt_s=link.rtt_s if link else None,
        jitter_s=link.jitter_s if link else None,
        loss_share=estimate.loss,
        bits_per_second=estimate.bits_per_second,
        quality=estimate.quality.name if link else "",
        quality_reason=estimate.quality.reason if link else "",
        standing=estimate.health.name,
        standing_reason=estimate.health.reason,
    )


def peer_scored(peer: PeerId, beacon: Beacon) -> PeerScored | None:
    """Return the score of an anchor that a beacon carries; None for a beacon without one."""
    score = score_of(beacon)
    if score is None:
        return None
    return PeerScored(
        peer=peer,
        number=score.number,
        certificate=score.certificate.hex(),
        loss=score.loss,
        samples=score.samples,
    )
