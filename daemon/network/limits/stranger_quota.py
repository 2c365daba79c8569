"""Whose gossip a connection may bring to a node that has never heard of the signer.

Keys are free: one connection could bring the beacons of four thousand. Each stranger that a
neighbour brings takes one of that neighbour's places, of its prefix's and of all, until the
stranger has been silent for `FORGOTTEN_S`. Above that the message is dropped as if it had not come.
Another neighbour with places left may bring it: in a swarm of a thousand, sixteen neighbours share
the work. Not counted are signers that are connected to us themselves, and those that matter to us
(members whose work was certified).

Pure: time is an argument.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple

from protocol.identity import PeerId

# A thousand members over sixteen neighbours.
OF_BRINGER = 64
# Four neighbours of one network; on loopback everybody.
OF_PREFIX = 256
IN_ALL = 1024  # as many as a run of a thousand has
# Without a message: twice the pause between the beacons of a thousand.
FORGOTTEN_S = 90.0


class _Stranger(NamedTuple):
    bringer: PeerId
    prefix: str
    heard_s: float


class StrangerQuota:
    """The strangers whose messages are listened to."""

    def __init__(self) -> None:
        # The one silent for longest first.
        self._strangers: OrderedDict[PeerId, _Stranger] = OrderedDict()
        self._of_bringer: Counter[PeerId] = Counter()
        self._of_prefix: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._strangers)

    def allows(self, signer: PeerId, bringer: PeerId, prefix: str, now: float) -> bool:
        """Whether a message that `bringer` brought and `signer` signed is listened to."""
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
            self._tidy(bringer, prefix)
            return False
        self._strangers[signer] = _Stranger(bringer, prefix, now)
        self._of_bringer[bringer] += 1
        self._of_prefix[prefix] += 1
        return True

    def forget(self, signer: PeerId) -> None:
        """It is no stranger any more."""
        known = self._strangers.pop(signer, None)
        if known is not None:
            self._of_bringer[known.bringer] -= 1
            self._of_prefix[known.prefix] -= 1
            self._tidy(known.bringer, known.prefix)

    def _forget_silent(self, now: float) -> None:
        while self._strangers:
            signer, stranger = next(iter(self._strangers.items()))
            if now - stranger.heard_s <= FORGOTTEN_S:
                return
            self.forget(signer)

    def _tidy(self, bringer: PeerId, prefix: str) -> None:
        """No counter is kept at zero: bringers come and go."""
        if not self._of_bringer[bringer]:
            del self._of_bringer[bringer]
        if not self._of_prefix[prefix]:
            del self._of_prefix[prefix]
