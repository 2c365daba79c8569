"""Limits how many unknown signers' gossip a connection may bring.

Keys are free: one connection could bring the beacons of four thousand keys. Each stranger that a
neighbour brings uses one of that neighbour's places, one of its prefix's and one of all, until the
stranger has been silent for `FORGOTTEN_S`. Above a limit the message is dropped as if it had not
arrived. Another neighbour with places left may bring it: in a swarm of a thousand, sixteen
neighbours share the work. Signers that are connected to us do not count, and neither do those that
matter (members whose work was certified).

Pure: time is an argument.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple

from protocol.identity import PeerId

# A thousand members over sixteen neighbours.
OF_BRINGER = 64
# Four neighbours of one network. On loopback all neighbours share one prefix.
OF_PREFIX = 256
# As many as a run of a thousand members has.
IN_ALL = 1024
# Twice the pause between two beacons of a member in a run of a thousand.
FORGOTTEN_S = 90.0


class _Stranger(NamedTuple):
    bringer: PeerId
    prefix: str
    heard_s: float


class StrangerQuota:
    """The strangers whose messages are accepted now."""

    def __init__(self) -> None:
        # The stranger that was silent for longest comes first.
        self._strangers: OrderedDict[PeerId, _Stranger] = OrderedDict()
        self._of_bringer: Counter[PeerId] = Counter()
        self._of_prefix: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._strangers)

    def allows(self, signer: PeerId, bringer: PeerId, prefix: str, now: float) -> bool:
        """Whether a message that `bringer` brought and `signer` signed is accepted."""
        known = self._strangers.get(signer)
        if known is not None:
            self._strangers[signer] = known._replace(heard_s=now)
            self._strangers.move_to_end(signer)
            return True
        self._forget_silent(now)
        if (
            len(self._strangers) >= IN_ALL
            or self._of_bringer[bringer] >= OF_BRINGER
            or self._of_prefix[prefix] >= OF_PREFIX
        ):
            self._delete_zeros(bringer, prefix)
            return False
        self._strangers[signer] = _Stranger(bringer, prefix, now)
        self._of_bringer[bringer] += 1
        self._of_prefix[prefix] += 1
        return True

    def forget(self, signer: PeerId) -> None:
        """Free the places of a signer that is no stranger any more."""
        known = self._strangers.pop(signer, None)
        if known is not None:
            self._of_bringer[known.bringer] -= 1
            self._of_prefix[known.prefix] -= 1
            self._delete_zeros(known.bringer, known.prefix)

    def _forget_silent(self, now: float) -> None:
        while self._strangers:
            signer, stranger = next(iter(self._strangers.items()))
            if now - stranger.heard_s <= FORGOTTEN_S:
                return
            self.forget(signer)

    def _delete_zeros(self, bringer: PeerId, prefix: str) -> None:
        """Delete counters that are zero, since bringers come and go."""
        if not self._of_bringer[bringer]:
            del self._of_bringer[bringer]
        if not self._of_prefix[prefix]:
            del self._of_prefix[prefix]
