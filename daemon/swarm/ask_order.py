"""Whom to ask first for what gossip missed, so that those who only claim to have it cannot keep a
node from asking the others.

Anybody can say in a beacon that it is far ahead. Peers whose work was certified are asked before
strangers, equals in turn, and a stranger that gave nothing when it was asked is left alone for a
while, longer each time. Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from protocol.identity import PeerId

# After the first answer without anything new, and at most; doubled in between.
PAUSE_S = (1.0, 120.0)
# At most, for a peer of the best rank: what it lacked just now it may hold in the next round.
MEMBER_PAUSE_S = 2.0
KEPT_PEERS = 1024


class AskOrder:
    """What one node remembers of those it asked."""

    def __init__(self) -> None:
        # How often in a row, and until when it is left alone.
        self._in_vain: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()
        self._asked_s: OrderedDict[PeerId, float] = OrderedDict()

    def order(
        self, peers: Iterable[PeerId], ranked: Callable[[PeerId], int], now: float
    ) -> list[PeerId]:
        """Those to ask, best first: by `ranked` (least first), then by how often they gave nothing
        and when they were asked, then as given.
        """
        ready = [
            peer for peer in dict.fromkeys(peers) if self._in_vain.get(peer, (0, 0.0))[1] <= now
        ]
        return sorted(
            ready,
            key=lambda peer: (
                ranked(peer),
                self._in_vain.get(peer, (0, 0.0))[0],
                self._asked_s.get(peer, 0.0),
            ),
        )

    def asked(self, peer: PeerId, now: float) -> None:
        """It is being asked."""
        self._asked_s.pop(peer, None)
        self._asked_s[peer] = now
        while len(self._asked_s) > KEPT_PEERS:
            self._asked_s.popitem(last=False)

    def gave(self, peer: PeerId) -> None:
        """It had something new."""
        self._in_vain.pop(peer, None)

    def gave_nothing(self, peer: PeerId, rank: int, now: float) -> None:
        """It had nothing new, or did not answer."""
        times = self._in_vain.pop(peer, (0, 0.0))[0] + 1
        most_s = PAUSE_S[1] if rank else MEMBER_PAUSE_S
        self._in_vain[peer] = (times, now + min(most_s, PAUSE_S[0] * 2.0 ** min(times - 1, 16)))
        while len(self._in_vain) > KEPT_PEERS:
            self._in_vain.popitem(last=False)
