"""How much news of one peer, and of all strangers together, a node looks at.

A beacon costs a signature check and everything that follows from the beacon. A certificate costs
milliseconds to verify. So each signer has a rate, and strangers share another one.
"""

from __future__ import annotations

import trio

from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from protocol.identity import PeerId
from protocol.rate_limiter import RateLimiter, RateLimiters

# Beacons heard of one signer. An honest signer has a change to report twice a second at most.
SIGNER_BEACONS_PER_S, SIGNER_BEACONS_AT_ONCE = 4.0, 40.0
# A certificate counts as many beacons. One a second is more than any round makes.
CERTIFICATE_COUNTS = 4.0
# Certificates of all strangers together.
STRANGERS_CERTIFICATES_PER_S, STRANGERS_CERTIFICATES_AT_ONCE = 2.0, 16.0


class NewsLimits:
    """Counts beacons and certificates by signer, and refuses those above the rates."""

    def __init__(self, members: Members, refuse: Refuse) -> None:
        self._members, self._refuse = members, refuse
        self._signers = RateLimiters(per_s=SIGNER_BEACONS_PER_S, burst=SIGNER_BEACONS_AT_ONCE)
        self._strangers = RateLimiter(
            per_s=STRANGERS_CERTIFICATES_PER_S, burst=STRANGERS_CERTIFICATES_AT_ONCE, now=0.0
        )

    def admits_beacon(self, peer: PeerId) -> bool:
        """Count a beacon. Returns whether the node should look at it."""
        return self._admits(peer, 1.0)

    def admits_certificate(self, peer: PeerId) -> bool:
        """Count a certificate. Returns whether the node should look at it."""
        if self._members.rank(peer) and not self._strangers.spend(1.0, trio.current_time()):
            self._refuse(
                "busy",
                peer,
                f"more than {STRANGERS_CERTIFICATES_PER_S:g} certificates a second of strangers",
            )
            return False
        return self._admits(peer, CERTIFICATE_COUNTS)

    def _admits(self, peer: PeerId, counts: float) -> bool:
        now = trio.current_time()
        if self._signers.of(peer, now).spend(counts, now):
            return True
        self._refuse("busy", peer, f"more than {SIGNER_BEACONS_PER_S:g} beacons a second")
        return False
