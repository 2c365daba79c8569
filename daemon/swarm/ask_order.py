"""The order in which peers are asked for what gossip missed.

Any peer can claim in a beacon that it is far ahead. Peers whose work was certified are asked before
strangers, and equals in turn. A stranger that gave nothing is not asked again for a while, longer
each time. So peers with false claims cannot keep a node from asking others.

Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from protocol.identity import PeerId

# The pause after the first answer without news, and the longest pause. It doubles each time.
PAUSE_S = (1.0, 120.0)
# The longest pause of a member, which may have news in the next round.
MEMBER_PAUSE_S = 2.0
KEPT_PEERS = 1024


class AskOrder:
    """What one node remembers of the peers that it asked."""

    def __init__(self) -> None:
        # How often in a row a peer gave nothing, and until when it is not asked.
        self._in_vain: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()
        self._asked_s: OrderedDict[PeerId, float] = OrderedDict()

    def order(
        self, peers: Iterable[PeerId], ranked: Callable[[PeerId], int], now: float
    ) -> list[PeerId]:
        """The peers to ask, best first.

        They are sorted by `ranked` (the least first), then by how often they gave nothing, then by
        when they were asked, then as given.
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
        """Note that the peer is asked now."""
        self._asked_s.pop(peer, None)
        self._asked_s[peer] = now
        while len(self._asked_s) > KEPT_PEERS:
            self._asked_s.popitem(last=False)

    def gave(self, peer: PeerId) -> None:
        """Note that the peer had news."""
        self._in_vain.pop(peer, None)

    def gave_nothing(self, peer: PeerId, rank: int, now: float) -> None:
        """Note that the peer had no news, or did not answer."""
        times = self._in_vain.pop(peer, (0, 0.0))[0] + 1
        most_s = PAUSE_S[1] if rank else MEMBER_PAUSE_S
        self._in_vain[peer] = (times, now + min(most_s, PAUSE_S[0] * 2.0 ** min(times - 1, 16)))
        while len(self._in_vain) > KEPT_PEERS:
            self._in_vain.popitem(last=False)
