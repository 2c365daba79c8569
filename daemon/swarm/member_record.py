"""What a node remembers of another peer: its last beacon, and whether it is alive."""

from __future__ import annotations

import msgspec

from protocol.messages.beacon import Beacon
from protocol.round.phase import Phase

# In these phases a node has not made its offer of the round yet.
TRAINING = (Phase.TRAIN.value, Phase.OFFER.value)


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A peer as last heard of. Times are on our monotonic clock."""

    beacon: Beacon
    heard_s: float
    # A connection broke, and no newer beacon arrived since.
    lost: bool = False
    # Its task differs from ours or was not compared yet, so it is in no plan of ours.
    apart: bool = False

    @property
    def is_live_node(self) -> bool:
        return not self.lost and not self.apart and self.beacon.role == "node"

    @property
    def is_training(self) -> bool:
        """Whether it has not made its offer of the round yet."""
        return self.beacon.phase in TRAINING


def advanced(before: Beacon, after: Beacon) -> bool:
    """Whether the sender of two beacons advanced in a round between them."""
    return (before.phase, before.view, before.number) != (after.phase, after.view, after.number)
