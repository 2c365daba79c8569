"""Reports to the link estimates how fast peers sent and received in a round."""

from __future__ import annotations

from daemon.services.training.native.exchange.exchange_context import PartArrival
from daemon.services.training.native.exchange.link_meter import link_use
from daemon.swarm.link_estimates import LinkEstimates
from protocol.identity import PeerId
from protocol.planning.plan import OpenPlan


def note_part(estimates: LinkEstimates, arrival: PartArrival, downlink_bps: int) -> None:
    """Report how fast a contributor sent its part.

    `downlink_bps` is the measured rate of this node's downlink, 0 if there is none.
    """
    estimates.note_uplink(
        arrival.peer,
        arrival.sent_to_all_bytes,
        arrival.size_bytes,
        arrival.seconds,
        link_use(arrival.received_bytes, arrival.seconds, downlink_bps),
    )


def note_sent(
    estimates: LinkEstimates,
    plan: OpenPlan,
    peer: PeerId,
    size_bytes: int,
    seconds: float,
    uplink_bps: int,
) -> None:
    """Report how fast a peer received what this node sent.

    Every member of a group sends the peer about as much as this node does. This node sent the other
    members about as much meanwhile. `uplink_bps` is the measured rate of this node's uplink, 0 if
    there is none.
    """
    if peer in plan.index:
        others = len(plan.layout.group_members(plan.index[peer])) - 1
        estimates.note_downlink(
            peer,
            size_bytes * others,
            size_bytes,
            seconds,
            link_use(size_bytes * others, seconds, uplink_bps),
        )
