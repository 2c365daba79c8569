"""Chooses which established connection makes room when a node has as many as it may hold.

Keys are free, so a stranger can bring any number of authenticated connections. Three kinds are
never dropped: connections to peers that matter (members whose work was certified,
addresses that the user named), those that this node made itself, and the older half of the rest. A
member that has been connected for hours does not leave for a newcomer. Of the younger half, a
connection of the most crowded prefix is dropped by chance, since a predictable rule can be
avoided. Bitcoin Core protects the longer-lived half of its peers for the same reason
(`node/eviction.cpp`).

Pure: chance is an argument.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from protocol.identity import PeerId


class InboundConnection(NamedTuple):
    """An established connection that another peer made to us."""

    peer: PeerId
    prefix: str
    since_s: float
    matters: bool


def choose_eviction(
    connections: Sequence[InboundConnection], chance: random.Random
) -> InboundConnection | None:
    """The connection to drop for a newcomer; None when all peers matter."""
    strangers = sorted((one for one in connections if not one.matters), key=lambda one: one.since_s)
    young = strangers[len(strangers) // 2 :]
    if not young:
        return None
    crowd = Counter(one.prefix for one in strangers)
    most = max(crowd[one.prefix] for one in young)
    return chance.choice([one for one in young if crowd[one.prefix] == most])
