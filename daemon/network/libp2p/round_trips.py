"""The recent round-trip times of one connection, and how long to wait for the next answer."""

from __future__ import annotations

from collections import deque
from statistics import median

# The least and the most time for an answer. Silence is reported within 4 s, within 5 s where round
# trips take 0.5 s, and within 10 s at worst.
ANSWER_S = (3.0, 9.0)
# The least time after the first answer. Silence on a connection that is one second old is reported
# within 4.5 s.
YOUNG_ANSWER_S = 4.0
# The time for an answer in multiples of the slowest recent round trip: queues fill and machines
# get busy over seconds, and round trips show it.
ROUND_TRIPS_TO_WAIT = 8
# Round trips that are remembered: those of the last 12 s.
RECENT_ROUND_TRIPS = 12
# With fewer round trips, each counts double. With none, an answer has the most time, since a node
# that joins is busy connecting.
TRUSTED_ROUND_TRIPS = 3
# The weight of a new measurement: half of a change shows after three.
RTT_SMOOTHING = 0.25


class RoundTrips:
    """Pure: measurements come as arguments. Times are in seconds."""

    def __init__(self) -> None:
        # The smoothed round-trip time; None before the first answer.
        self.rtt_s: float | None = None
        self._recent_s: deque[float] = deque(maxlen=RECENT_ROUND_TRIPS)

    def add(self, measured_s: float) -> None:
        """Note an answer."""
        self._recent_s.append(measured_s)
        before = measured_s if self.rtt_s is None else self.rtt_s
        self.rtt_s = before + RTT_SMOOTHING * (measured_s - before)

    @property
    def trusted(self) -> bool:
        """Whether there are enough round trips to say how long an answer may take."""
        return len(self._recent_s) >= TRUSTED_ROUND_TRIPS

    @property
    def jitter_s(self) -> float | None:
        """The median distance of recent round trips from their median; None while they are few."""
        if not self.trusted:
            return None
        middle = median(self._recent_s)
        return median(abs(one - middle) for one in self._recent_s)

    def answer_s(self) -> float:
        """How long the next answer may take.

        A false alarm costs the round a member. A late one costs the round its time.
        """
        least, most = ANSWER_S
        if not self._recent_s:
            return most
        slowest_s = ROUND_TRIPS_TO_WAIT * max(self._recent_s)
        wanted_s = max(least, slowest_s) if self.trusted else max(YOUNG_ANSWER_S, 2 * slowest_s)
        return min(wanted_s, most)
