"""The order of leaders: no fixed coordinator, but a draw by a hash that no one chooses.

The candidates after a certificate are the members that its inclusion names as present; at genesis,
the peers known so far. The certificate's voters are no candidates: its hash does not cover which
votes an assembler had, so two nodes with the same certificate could draw two orders. The hash
covers the inclusion, and every voter saw it.

Newcomers follow the candidates, in views after all candidates were passed over. Without this, new
nodes could never lead a run whose last members all left for good.

In runs of rules 4 only voters lead, in an order that never changes (`voter_order`). An order by the
parent's hash could be ground: a leader chooses free text in what the hash covers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from protocol.digest import Digest, digest
from protocol.identity import PeerId

# One round asks for the same two orders many times, and a thousand candidates take a millisecond to
# order.
ORDERS_KEPT = 16


def leader_order(parent: Digest, candidates: Iterable[PeerId]) -> tuple[PeerId, ...]:
    """The candidates in the order in which they lead views 0, 1, 2, ... after `parent`."""
    return _ordered(parent, frozenset(candidates))


@lru_cache(maxsize=ORDERS_KEPT)
def _ordered(parent: Digest, candidates: frozenset[PeerId]) -> tuple[PeerId, ...]:
    return tuple(sorted(candidates, key=lambda peer: digest(parent, peer.encode())))


def voter_order(run: Digest, voters: tuple[PeerId, ...], number: int) -> tuple[PeerId, ...]:
    """The voters in the order in which they lead views 0, 1, 2, ... of round `number`.

    View v of round n is led by voter (n + v) modulo their number, in the order of a digest of run
    and peer.
    """
    order = _ordered(run, frozenset(voters))
    first = number % len(order)
    return order[first:] + order[:first]


def leader_of(order: tuple[PeerId, ...], view: int) -> PeerId:
    """The leader of a view: candidate number `view`, modulo the number of candidates."""
    return order[view % len(order)]


def vote_collectors(order: tuple[PeerId, ...], view: int) -> tuple[PeerId, ...]:
    """The collectors of a view's votes: its leader and the next two candidates.

    Any of them may assemble the certificate.
    """
    return tuple(dict.fromkeys(order[(view + i) % len(order)] for i in range(min(3, len(order)))))
