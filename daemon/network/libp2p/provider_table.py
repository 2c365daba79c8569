"""Who announced which key to us, where strangers cannot push a run's members out.

A peer is kept under a key while it announces itself again. When a key has as many peers as it may,
one of its younger half makes room, from the prefix that holds most. A peer that matters to us
stays, and so does one that was announced for long. Answers hold the peers that matter first, then
a random choice of the rest: with 20 of 64 at a time, an asker that asks twice sees others. When
there are too many keys, the key with the fewest peers goes, and never one of our own.

Pure but for chance: time is an argument.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from daemon.network.limits.prefixes import LOOPBACK_PREFIX
from protocol.identity import PeerId

# Keys whose providers we keep for others. A swarm has a few for each run.
MAX_KEYS = 1024
# Keys under which one peer is kept: the runs that a node can be in, four keys each.
MAX_KEYS_OF_PEER = 16
# A few live providers of a key are enough to enter a swarm.
MAX_PROVIDERS = 64
# Providers of one key from one prefix that is not loopback.
MAX_OF_PREFIX = 32
# Providers in one answer: Kademlia's k, and all that one message should hold.
MAX_ANSWER = 20
# Three times the pause between announcements.
KEPT_S = 1800.0

T = TypeVar("T", bound=Hashable)


class _Provider(NamedTuple, Generic[T]):
    info: T
    prefix: str
    since_s: float
    heard_s: float


class ProviderTable(Generic[T]):
    """Providers by key. `matters` says which peers are never pushed out by others."""

    def __init__(self, matters: Callable[[PeerId], bool], chance: random.Random) -> None:
        self._matters = matters
        self._chance = chance
        self._keys: dict[bytes, dict[PeerId, _Provider[T]]] = {}
        self._own: set[bytes] = set()
        self._of_peer: Counter[PeerId] = Counter()

    def __len__(self) -> int:
        return len(self._keys)

    def own(self, key: bytes) -> None:
        """Note that we announce this key ourselves."""
        self._own.add(key)

    def add(self, key: bytes, peer: PeerId, info: T, prefix: str, now: float) -> bool:
        """Note an announcement. Returns whether the peer is kept under this key."""
        self.expire(now)
        there = self._keys.get(key, {})
        known = there.get(peer)
        if known is not None:
            there[peer] = known._replace(info=info, heard_s=now)
            return True
        if self._of_peer[peer] >= MAX_KEYS_OF_PEER and not self._matters(peer):
            return False
        if (
            prefix != LOOPBACK_PREFIX
            and sum(one.prefix == prefix for one in there.values()) >= MAX_OF_PREFIX
        ):
            return False
        if not there and len(self._keys) >= MAX_KEYS and not self._drop_key():
            return False
        if len(there) >= MAX_PROVIDERS:
            self._drop_one(key)
        self._keys.setdefault(key, {})[peer] = _Provider(info, prefix, now, now)
        self._of_peer[peer] += 1
        return True

    def answer(self, key: bytes, now: float) -> list[T]:
        """Up to `MAX_ANSWER` providers, those that matter first."""
        self.expire(now)
        there = self._keys.get(key, {})
        known = [peer for peer in there if self._matters(peer)]
        others = [peer for peer in there if not self._matters(peer)]
        self._chance.shuffle(known)
        self._chance.shuffle(others)
        return [there[peer].info for peer in (*known, *others)[:MAX_ANSWER]]

    def expire(self, now: float) -> None:
        """Forget peers that have not announced themselves for `KEPT_S`."""
        for key, there in list(self._keys.items()):
            for peer in [peer for peer, one in there.items() if now - one.heard_s > KEPT_S]:
                self._remove(key, peer)

    def _remove(self, key: bytes, peer: PeerId) -> None:
        del self._keys[key][peer]
        if not self._keys[key]:
            del self._keys[key]
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]

    def _drop_one(self, key: bytes) -> None:
        there = self._keys[key]
        strangers = sorted(
            (peer for peer in there if not self._matters(peer)),
            key=lambda peer: there[peer].since_s,
        )
        young = strangers[len(strangers) // 2 :] or list(there)
        crowd = Counter(one.prefix for one in there.values())
        most = max(crowd[there[peer].prefix] for peer in young)
        self._remove(
            key, self._chance.choice([peer for peer in young if crowd[there[peer].prefix] == most])
        )

    def _drop_key(self) -> bool:
        others = [key for key in self._keys if key not in self._own]
        if not others:
            return False
        least = min(
            others,
            key=lambda key: (
                len(self._keys[key]),
                -min(one.since_s for one in self._keys[key].values()),
            ),
        )
        for peer in list(self._keys[least]):
            self._remove(least, peer)
        return True
