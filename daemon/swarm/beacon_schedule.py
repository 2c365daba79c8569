"""How often beacons go out, and how long a node waits for them.

Every node hears every beacon. So beacons become rarer as members become more, and what one node
hears stays below `BEACONS_PER_S`, as SWIM and memberlist keep a member's load constant
(https://www.cs.cornell.edu/projects/Quicksilver/public_pdfs/SWIM.pdf). Up to 125 members nothing
changes. The price is how soon a silent peer is forgotten: after 20 s then, after 160 s with a
thousand. A crash is not noticed that way: peers that are connected to the dead node notice at once,
and a leader that is not waits `ready_s` for it and plans without it.
"""

from __future__ import annotations

# Between the beacons of few members. The page shows what they say.
BEACON_S = 5.0
# Heard by one node of many when nothing happens: 20 KB/s with every copy that gossip brings.
BEACONS_PER_S = 25.0
# Beacons sent instead of one when there is something new to report.
BEACONS_PER_CHANGE = 2
# The least time between two beacons of few members, however much changes.
MIN_GAP_S = 0.5
# Missed beacons after which a peer is forgotten.
BEACONS_LOST = 4
# Up to this many members, a node acts on every change at once.
FEW_MEMBERS = 64
# With a thousand members and more, a node acts on changes this often: each time it makes a set of a
# thousand anew.
LOOKS_PER_S = 1.0
# Rounds for which a round waits for a stranger.
STRANGER_ROUNDS = 3.0


def beacon_s(members: int) -> float:
    """Seconds between two beacons of a node that knows `members` others, without news."""
    return max(BEACON_S, members / BEACONS_PER_S)


def poke_gap_s(members: int) -> float:
    """The least time between two beacons, however much changes."""
    return max(MIN_GAP_S, members / (BEACONS_PER_S * BEACONS_PER_CHANGE))


def silence_s(members: int) -> float:
    """A peer without a beacon for this long is forgotten."""
    return BEACONS_LOST * beacon_s(members)


def stranger_timeout_s(round_s: float, ready_s: float) -> float:
    """For how long rounds of this length wait for a stranger that takes no part.

    The time is enough to train once and to offer twice.
    """
    return STRANGER_ROUNDS * (round_s + ready_s)


def settling_s(members: int) -> float:
    """For how long changes are gathered before a node acts on them."""
    return 0.0 if members <= FEW_MEMBERS else min(1.0 / LOOKS_PER_S, members / 1000)
