"""What this node knows of the link to one peer: round trips, losses and bandwidths.

Round trips and losses come from live connections. Bandwidths come from the transfers of rounds. A
peer's uplink is what it had to send, over the time until our part arrived. Its downlink is what it
had to receive, over the time until it had our part.
"""

from __future__ import annotations

import msgspec

from protocol.network.coordinate import LEAST_RTT_US, Coordinate
from protocol.network.peer_health import PeerHealth
from protocol.network.peer_observation import MOST_BITS
from protocol.network.quality import LinkQuality
from protocol.network.samples import SampleWindow

# Observations kept of a link. The busiest one counts, since a round sees no more than its exchange
# asks of the link.
REMEMBERED = 4
# Shorter or smaller transfers say more of buffers and of the scheduler than of the link.
MIN_S = 0.2
MIN_BYTES = 1 << 18
# A transfer of fewer round trips is mostly waiting, and does not show how wide the link is.
MIN_ROUND_TRIPS = 4
# Segments sent to a peer before its losses count: a loss of one in a thousand decides.
MIN_SEGMENTS = 500
# A flow slower than this share of what its losses allow was bounded by something else.
ROOM = 0.8
# With our own link busier than this share of the most that it carried, our link may be the bound.
BUSY = 0.8


Bandwidth = tuple[bool, int]
"""Whether the path and our own link had room left, and bits per second."""

NOTHING: Bandwidth = (False, 0)


class LinkEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The link to one peer, as measured by this node."""

    # Whole microseconds.
    rtt: SampleWindow = SampleWindow()
    # Self-reported, in the peer's last Ready.
    coordinate: Coordinate | None = None
    quality: LinkQuality = LinkQuality()
    # The last observations with room, then the last without, the newest last.
    ups: tuple[Bandwidth, ...] = ()
    downs: tuple[Bandwidth, ...] = ()
    # The most that one flow carried in either direction: bits per second times the round trip in
    # microseconds at that time.
    carried: int = 0
    health: PeerHealth = PeerHealth()
    # For each round in one plan with us: whether the peer stayed to the end.
    outcomes: tuple[bool, ...] = ()
    segments: int = 0
    retransmits: int = 0

    @property
    def loss(self) -> float | None:
        """The share of segments to the peer that were retransmitted; None while they are few."""
        return self.retransmits / self.segments if self.segments >= MIN_SEGMENTS else None

    @property
    def up(self) -> Bandwidth:
        """The most that its uplink carried. Observations with room on the path count first."""
        return max(self.ups, default=NOTHING)

    @property
    def down(self) -> Bandwidth:
        """The most that its downlink carried, as `up`."""
        return max(self.downs, default=NOTHING)

    @property
    def bits_per_second(self) -> int:
        """The most that its link carried in either direction; 0 before the first observation."""
        return max(self.up[1], self.down[1]) if self.ups or self.downs else 0

    def seen(
        self,
        all_bytes: int,
        our_bytes: int,
        seconds: float,
        trips: float,
        busy: float,
        flow_bits: int,
        known_bps: int = 0,
    ) -> Bandwidth | None:
        """What a transfer says about a link; None when the transfer was short.

        A short transfer still says that the link carries at least its bytes in the shortest time
        that can be measured. That counts where the link was measured as slower: without it, a link
        that became faster would keep its old rate for ever.

        Args:
            all_bytes: All bytes of the transfer, ours among them.
            trips: Round trips of `seconds` that were waiting.
            busy: The share of the most that our own link carried.
            flow_bits: What the path carries, in bits per second; 0 where it is unknown.
            known_bps: The most that the link carried so far, in bits per second; 0 before that.
        """
        rtt_s = (self.rtt.settled or 0) / 1e6
        seconds -= trips * rtt_s
        if all_bytes < MIN_BYTES:
            return None
        if seconds < (least_s := max(MIN_S, MIN_ROUND_TRIPS * rtt_s)):
            at_least = min(MOST_BITS, int(8 * all_bytes / least_s))
            return (True, at_least) if at_least > known_bps > 0 else None
        room = not flow_bits or 8 * our_bytes / seconds < ROOM * flow_bits
        return room and busy < BUSY, min(MOST_BITS, int(8 * all_bytes / seconds))

    @property
    def flow_seen(self) -> int:
        """What one flow carried, in bits per second, corrected for a longer round trip since."""
        return min(MOST_BITS, self.carried // (self.rtt.settled or LEAST_RTT_US))

    def carrying(self, all_bytes: int, our_bytes: int, seconds: float) -> int:
        """`carried` after a transfer.

        A transfer of a few round trips counts too, since the path carried at least that much.
        Without those, a busy machine whose pings take a second estimated a tenth of the truth from
        its losses.
        """
        if all_bytes < MIN_BYTES or seconds < MIN_S:
            return self.carried
        return max(self.carried, int(8 * our_bytes / seconds) * (self.rtt.settled or 0))


def remember(before: tuple[Bandwidth, ...], seen: Bandwidth) -> tuple[Bandwidth, ...]:
    """The last few observations.

    An observation without room is only a lower bound, and replaces none that was made with room.
    """
    free = [one for one in (*before, seen) if one[0]][-REMEMBERED:]
    bounded = [one for one in (*before, seen) if not one[0]][-REMEMBERED:]
    return (*free, *bounded)
