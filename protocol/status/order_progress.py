"""Which nodes follow the order of the run's owner: all of them, some of them, or none.

A node that trains reports its speed with its beacons, so an observer sees who still trains.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.status.peer_records import PeerId
from protocol.status.standstill import recently_heard
from protocol.status.state import StatusState

FOLLOW_S = 60.0
"""After this time a node that still trains does not follow. An order reaches all within seconds,
and the speed in a beacon is that of the last half minute."""

Outcome = Literal["complete", "partial", "failed"]


class OrderProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an order to pause or stop got.

    `outcome` is "complete" where no node that is heard trains, "failed" where all of them do, and
    "partial" between. `training` are the nodes that still train. `is_late` says that they had time
    enough.
    """

    outcome: Outcome
    heard: int
    training: tuple[PeerId, ...]
    is_late: bool


def order_progress(state: StatusState, now: float) -> OrderProgress | None:
    """Return how far the last order to pause or stop got; None where the run trains by order.

    `now` is in unix seconds by the clock of the events.
    """
    if not state.run.order:
        return None
    heard = recently_heard(list(state.peers.values()), now)
    training = tuple(peer.peer for peer in heard if peer.samples_per_second > 0)
    known = len(heard)
    if state.you.role == "node" and state.you.peer:
        known += 1
        if not state.held and state.you.samples_per_second > 0:
            training = (state.you.peer, *training)
    outcome: Outcome = "complete"
    if training:
        outcome = "failed" if len(training) == known else "partial"
    return OrderProgress(
        outcome=outcome,
        heard=known,
        training=training,
        is_late=now - state.ordered_at > FOLLOW_S,
    )
