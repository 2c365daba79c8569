"""Notices when a node that heard no voter, or that slept, hears voters again (rules 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from daemon.swarm.members import Members
from protocol.identity import PeerId

AWAY_GRACES = 0.25
"""How long no voter is heard before one counts as returned, in graces: 30 s by default.

A connection that breaks comes back in seconds, and must not make the survivors of a mass departure
wait anew.
"""

LOOKS_PER_ABSENCE = 4
"""The looks at the clock in the time after which a node counts as having slept."""

MOST_RETURNS = 3
"""The returns that count without a full certificate between them.

Without a limit, one voter that comes and goes every minute would let a node wait for good.
"""


class VotersWatch:
    """The voters that one node hears."""

    def __init__(self, me: PeerId, members: Members, returned: Callable[[], None]) -> None:
        """`returned` is called when a voter is heard again."""
        self._me, self._members, self._returned = me, members, returned
        # Since when no voter is heard; None while one is.
        self._alone_since: float | None = None
        # When this node last ran; None before the first look.
        self._ran_at: float | None = None
        # The returns since the last full certificate.
        self._returns = 0

    def certified(self) -> None:
        """Note a full certificate: enough voters are here."""
        self._returns = 0

    def slept(self, grace_s: float, now: float) -> bool:
        """Whether this process stood still: a closed lid, SIGSTOP, a suspended machine.

        The first call after a sleep says so. Messages of before wait in its connections then, and
        certificates of a few voters among them: the grace in which it could hear the others was
        none. It must be called every `LOOKS_PER_ABSENCE`-th part of that time.
        """
        before, self._ran_at = self._ran_at, now
        stood_still = before is not None and now - before >= AWAY_GRACES * grace_s
        if not stood_still or self._returns >= MOST_RETURNS:
            return False
        self._returns += 1
        return True

    def look(self, voters: Collection[PeerId], grace_s: float, now: float) -> None:
        """Note who is alive at `now`, in monotonic seconds."""
        others = [peer for peer in voters if peer != self._me]
        heard = any(self._members.lives(peer) for peer in others)
        if not heard:
            self._alone_since = now if self._alone_since is None else self._alone_since
            return
        since, self._alone_since = self._alone_since, None
        away = since is not None and now - since >= AWAY_GRACES * grace_s
        if away and self._returns < MOST_RETURNS:
            self._returns += 1
            self._returned()
