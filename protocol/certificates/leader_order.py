"""Who leads: no fixed coordinator, an order drawn by a hash that nobody chooses.

Candidates for the rounds after a certificate are the members that its Cut names as present (at
genesis: the peers known so far). ROUND's first text said its voters; but which votes an assembler
happened to hold is not covered by the certificate's hash, so two nodes with the same certificate
could have drawn two orders. The Cut is covered, and every voter saw it.

Newcomers come after all of them, in views that are only reached when every candidate was passed
over: without that, a run whose last members all left for good could never be led again by those who
joined since.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from protocol.digest import Digest, digest
from protocol.identity import PeerId

# Drawn lately: one round asks for the same two many times, and a thousand candidates take a
# millisecond to draw.
ORDERS_KEPT = 16


def leader_order(parent: Digest, candidates: Iterable[PeerId]) -> tuple[PeerId, ...]:
    """The candidates in the order in which they lead views 0, 1, 2, ... after `parent`."""
    return _ordered(parent, frozenset(candidates))


@lru_cache(maxsize=ORDERS_KEPT)
def _ordered(parent: Digest, candidates: frozenset[PeerId]) -> tuple[PeerId, ...]:
    return tuple(sorted(candidates, key=lambda peer: digest(parent, peer.encode())))


def leader_of(order: tuple[PeerId, ...], view: int) -> PeerId:
    """View v is led by candidate v modulo their number."""
    return order[view % len(order)]


def vote_collectors(order: tuple[PeerId, ...], view: int) -> tuple[PeerId, ...]:
    """Who collects the votes of a view: its leader and the next two candidates, any of whom may
    assemble the certificate.
    """
    return tuple(dict.fromkeys(order[(view + i) % len(order)] for i in range(min(3, len(order)))))
