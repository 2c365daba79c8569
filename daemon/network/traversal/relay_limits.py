"""What relaying may cost the node that relays.

Keys are free, so a stranger can ask with any number of them. Members may have more than newcomers,
and peers of other runs get nothing. All newcomers together cannot take the members' places.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from protocol.identity import PeerId

# Seven members behind routers and one that relays for all: 21 pairs with one control connection
# and one bulk stream in each direction are 63 sessions. A session costs 128 KB and four
# descriptors.
MAX_SESSIONS = 128
# Sessions that one member asked for: three for each of 10 others. Sessions count for the asker.
SESSIONS_OF_MEMBER = 32
# Before the first certificate, everybody is a newcomer: two others, at both ends' request.
SESSIONS_OF_NEWCOMER = 8
SESSIONS_OF_NEWCOMERS = 48
# Requests whose two ends have not both arrived. An end arrives within a few round trips.
MAX_HALF_OPEN = 64
HALF_OPEN_OF_PEER = 8


class RelayLimits:
    """Counts sessions and half-open requests by the peer that asked."""

    def __init__(self) -> None:
        self._sessions: Counter[PeerId] = Counter()
        self._newcomers: Counter[PeerId] = Counter()
        self._half_open: Counter[PeerId] = Counter()

    @property
    def sessions(self) -> int:
        """The sessions now, half-open ones included."""
        return self._sessions.total()

    def why_not(self, asker: PeerId, *, member: bool) -> str:
        """Why `asker` may not have another session now; empty where it may."""
        if self.sessions >= MAX_SESSIONS:
            return f"this node relays its {MAX_SESSIONS} sessions"
        if not member and self._newcomers.total() >= SESSIONS_OF_NEWCOMERS:
            return f"this node relays {SESSIONS_OF_NEWCOMERS} sessions of newcomers"
        most = SESSIONS_OF_MEMBER if member else SESSIONS_OF_NEWCOMER
        if self._sessions[asker] >= most:
            return f"you have your {most} sessions"
        if self._half_open.total() >= MAX_HALF_OPEN or self._half_open[asker] >= HALF_OPEN_OF_PEER:
            return "too many of the requests wait for one of their ends"
        return ""

    def begin(self, asker: PeerId, *, member: bool) -> RelayPlace:
        """Count a session that is half open."""
        counters = [self._sessions, *([] if member else [self._newcomers])]
        sessions = [_held(counter, asker) for counter in counters]
        return RelayPlace(sessions, _held(self._half_open, asker))


class RelayPlace:
    """The place of one session."""

    def __init__(self, session: list[Callable[[], None]], half_open: Callable[[], None]) -> None:
        self._session, self._half_open = session, half_open

    def opened(self) -> None:
        """Note that both ends arrived."""
        self._half_open()

    def end(self) -> None:
        """Give the place back. A second call does nothing."""
        self._half_open()
        for release in self._session:
            release()


def _held(counter: Counter[PeerId], peer: PeerId) -> Callable[[], None]:
    """Count one for a peer. Returns the function that takes it back once."""
    counter[peer] += 1
    held = True

    def release() -> None:
        nonlocal held
        if held:
            held = False
            counter[peer] -= 1
            if not counter[peer]:
                del counter[peer]

    return release
