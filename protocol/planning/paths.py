"""Pairs of members without any path between them, which one plan must not hold both of.

Each offer of rules 4 names the peers to which all paths of its sender failed. Members of one plan
send each other slices, so that a pair without a path would hold up everybody until the deadline.
One of the two waits a round. The draw changes with every view, so that both take turns.

A false claim excludes its own sender: where only one side of a pair claims that there is no path,
that side waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from protocol.identity import PeerId
from protocol.messages.offer import Ready, TrustReady
from protocol.network.peer_observation import short_name


def without_path(
    offers: Sequence[tuple[PeerId, Ready]],
    never: PeerId,
    rank: Callable[[PeerId], int],
    drawn: Sequence[PeerId],
    least: int,
) -> dict[PeerId, PeerId]:
    """The members that wait, each with the one to which it has no path.

    Args:
        offers: The offers, one for each member.
        never: The leader, who never waits.
        rank: How much a member counts; those of a lower rank wait before others.
        drawn: All members, in an order that changes with every view. The last ones wait first.
        least: The members that must be left. Where too few would be, the others stay.
    """
    claims = _claims(offers)
    pairs = {frozenset((one, other)) for one, others in claims.items() for other in others}
    order = {peer: place for place, peer in enumerate(drawn)}
    waiting: dict[PeerId, PeerId] = {}
    while pairs and len(offers) - len(waiting) > least:
        involved = {peer for pair in pairs for peer in pair} - {never}
        out = max(
            involved,
            key=lambda peer: (
                sum(peer in pair for pair in pairs),
                _claims_alone(peer, claims),
                -rank(peer),
                order[peer],
            ),
        )
        reasons = [other for pair in pairs if out in pair for other in pair - {out}]
        waiting[out] = min(reasons, key=order.__getitem__)
        pairs = {pair for pair in pairs if out not in pair}
    return waiting


def _claims(offers: Sequence[tuple[PeerId, Ready]]) -> Mapping[PeerId, frozenset[PeerId]]:
    """To which other members of `offers` each member claims to have no path."""
    by_name = {short_name(peer): peer for peer, _ in offers}
    return {
        peer: frozenset(
            other
            for name in ready.unreachable
            if (other := by_name.get(name)) is not None and other != peer
        )
        for peer, ready in offers
        if isinstance(ready, TrustReady)
    }


def _claims_alone(peer: PeerId, claims: Mapping[PeerId, frozenset[PeerId]]) -> bool:
    """Whether `peer` claims something that the other side does not confirm."""
    return any(
        peer not in claims.get(other, frozenset()) for other in claims.get(peer, frozenset())
    )
