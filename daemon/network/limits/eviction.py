"""Which established connection makes room when a node has as many as it may hold.

Keys are free, so a stranger can bring as many authenticated connections as it likes. Never dropped
are connections to peers that matter (members whose work was certified, addresses that the user
named), connections that this node made itself, and the older half of the rest: a member that has
been here for hours does not leave for somebody who came now. Of the younger half a connection of
the most crowded prefix is dropped, chosen by chance, since a rule that can be foreseen can be
avoided (Bitcoin Core protects the longer half of its peers for the same reason,
`node/eviction.cpp`).

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
    residents: Sequence[InboundConnection], chance: random.Random
) -> InboundConnection | None:
    """The connection to drop for a newcomer; None when all that are there matter."""
    strangers = sorted((one for one in residents if not one.matters), key=lambda one: one.since_s)
    young = strangers[len(strangers) // 2 :]
    if not young:
        return None
    crowd = Counter(one.prefix for one in strangers)
    most = max(crowd[one.prefix] for one in young)
    return chance.choice([one for one in young if crowd[one.prefix] == most])
