"""What a plan concludes of its members' links.

The observations of others come before a member's own claims. A member that claims a fast link, or a
slow one to be spared, is measured by those that received from it and sent to it. The median of
their observations counts. Its own claim counts only until another member has measured it, and never
for more than the median of all. A coordinate that most observers contradict is replaced by the
place that they measured. So a lie about oneself has no effect once two others have measured, and a
false observation of another member is one of several.

Only integers and the median are used, which give the same result on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from protocol.identity import PeerId
from protocol.messages.offer import Ready
from protocol.network.coordinate import (
    ASTRAY,
    ASTRAY_US,
    FAR_US,
    LEAST_HEIGHT_US,
    Coordinate,
    estimate_us,
)
from protocol.network.flows import Flows, flows_of
from protocol.network.peer_observation import PeerObservation, short_name
from protocol.network.relayed_pairs import RelayedPair, relayed_pairs
from protocol.network.samples import median

UNKNOWN = 0
CONTRADICTED = 2
"""The number of observers from which on their majority overrules a coordinate."""

SEVERAL = 2
"""From so many observations that no path bounded, only those count.

A single one could come from an accomplice.
"""

NEAR_ONES = 4
"""One observer in this many suffices if it measured a much smaller distance."""

LEAST_DOUBT_US = 10_000
"""Estimates within this distance of a measurement are not wrong.

The jitter of an access is as large, and a round does not take noticeably longer.
"""

ENOUGH = 0.5
"""The share of members that must be measured before a time is predicted."""


class MemberLink(msgspec.Struct, frozen=True, kw_only=True):
    """One member's link as a plan uses it.

    0 bits a second means unknown. `at` is None if the member's place is unknown.
    """

    uplink_bps: int
    downlink_bps: int
    at: Coordinate | None


class NetworkSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan knows of the network, in the order of its members.

    `failure_rate` is of one member in one round. `measured` says whether enough is measured to
    predict anything. `longest_us` is the longest round trip that anybody measured: longer estimates
    are errors of coordinates.
    """

    members: tuple[MemberLink, ...]
    flows: Flows
    failure_rate: float
    measured: bool
    longest_us: int = FAR_US
    # What members send each other through relays.
    relayed: tuple[RelayedPair, ...] = ()


def snapshot_of(offers: Sequence[tuple[PeerId, Ready]]) -> NetworkSnapshot:
    """Combine the members' Readies."""
    index = {short_name(peer): i for i, (peer, _) in enumerate(offers)}
    seen = _seen(offers, index)
    ups = _believed(
        [ready.uplink_bps for _, ready in offers], [_links(views, "uplink_bps") for views in seen]
    )
    downs = _believed(
        [ready.downlink_bps for _, ready in offers],
        [_links(views, "downlink_bps") for views in seen],
    )
    places = _places([ready.coordinate for _, ready in offers], seen)
    rounds = sum(observation.rounds for views in seen for _, observation in views)
    failed = sum(
        min(observation.failed, observation.rounds) for views in seen for _, observation in views
    )
    located = sum(
        1
        for views, place in zip(seen, places, strict=True)
        if place is not None and any(observation.uplink_bps for _, observation in views)
    )
    return NetworkSnapshot(
        members=tuple(
            MemberLink(uplink_bps=up, downlink_bps=down, at=at)
            for up, down, at in zip(ups, downs, places, strict=True)
        ),
        flows=flows_of([ready.observations for _, ready in offers], index.keys()),
        failure_rate=failed / rounds if rounds else 0.0,
        longest_us=max(
            (observation.rtt_us for views in seen for _, observation in views), default=FAR_US
        ),
        measured=located > 0 and located >= ENOUGH * len(offers),
        relayed=relayed_pairs(offers, ups, downs),
    )


def places_of(offers: Sequence[tuple[PeerId, Ready]]) -> list[Coordinate | None]:
    """Return where the members of a plan are, as `snapshot_of` has it, at a tenth of its cost."""
    index = {short_name(peer): i for i, (peer, _) in enumerate(offers)}
    return _places([ready.coordinate for _, ready in offers], _seen(offers, index))


def _seen(
    offers: Sequence[tuple[PeerId, Ready]], index: Mapping[bytes, int]
) -> list[list[tuple[int, PeerObservation]]]:
    """Return who observed each member, and what; shape (members,)."""
    seen: list[list[tuple[int, PeerObservation]]] = [[] for _ in offers]
    for by, (_, ready) in enumerate(offers):
        # Each member has one observation of another, however often it is repeated.
        for who in {observation.who: observation for observation in ready.observations}.values():
            of = index.get(who.who)
            if of is not None and of != by:
                seen[of].append((by, who))
    return seen


def _links(views: Sequence[tuple[int, PeerObservation]], name: str) -> tuple[list[int], list[int]]:
    """Return the observed rates of a link: those that no other path bounded, and all."""
    known = [
        (getattr(observation, name), observation.bounded)
        for _, observation in views
        if getattr(observation, name) != UNKNOWN
    ]
    return [bits for bits, bounded in known if not bounded], [bits for bits, _ in known]


def _believed(claims: Sequence[int], seen: Sequence[tuple[list[int], list[int]]]) -> list[int]:
    """Return the rates that count.

    Several unbounded observations are a measurement. Bounded ones are lower bounds: beyond them a
    link counts as the typical one. No link counts for less than `SEVERAL` observers saw it carry,
    up to the typical rate: each of them sees no more than an exchange needed, and may not know what
    bounded it.
    """
    free_ones = [median(free) for free, _ in seen if len(free) >= SEVERAL]
    at_least = [sorted(known)[-min(SEVERAL, len(known))] for _, known in seen if known]
    typical = (
        max(median(rates) for rates in (free_ones, at_least) if rates)
        if free_ones or at_least
        else None
    )
    believed = []
    for claim, (free, known) in zip(claims, seen, strict=True):
        if len(free) >= SEVERAL:
            believed.append(max(median(free), min(sorted(known)[-SEVERAL], typical or 0)))
        elif known:
            believed.append(max(median(known), typical or 0))
        else:
            believed.append(claim if typical is None or claim == UNKNOWN else min(claim, typical))
    return believed


def _places(
    claims: Sequence[Coordinate | None], seen: Sequence[Sequence[tuple[int, PeerObservation]]]
) -> list[Coordinate | None]:
    contradicted = [
        _contradicted(claim, views, claims) for claim, views in zip(claims, seen, strict=True)
    ]
    places: list[Coordinate | None] = []
    for i, claim in enumerate(claims):
        if claim is not None and not contradicted[i]:
            places.append(claim)
            continue
        near = [
            (observation.rtt_us, by)
            for by, observation in seen[i]
            if claims[by] is not None and not contradicted[by]
        ]
        places.append(_beside(claims[min(near)[1]], min(near)[0]) if near else None)
    return places


def _contradicted(
    claim: Coordinate | None,
    views: Sequence[tuple[int, PeerObservation]],
    claims: Sequence[Coordinate | None],
) -> bool:
    """Return whether most observers measured another distance than a coordinate claims.

    An observer contradicts if the estimate is off by more than half of its measurement.
    """
    if claim is None:
        return False
    wrong, nearer, observers = 0, 0, 0
    for by, observation in views:
        other = claims[by]
        if other is not None:
            observers += 1
            estimate = estimate_us(claim, other)
            wrong += abs(estimate - observation.rtt_us) > max(
                observation.rtt_us // 2, LEAST_DOUBT_US
            )
            nearer += (
                estimate > ASTRAY * observation.rtt_us and estimate - observation.rtt_us > ASTRAY_US
            )
    # A node that answers in 15 ms is near, wherever its coordinate is. So the observers that
    # measured this need not be the majority.
    return observers >= CONTRADICTED and (
        2 * wrong > observers or (nearer >= CONTRADICTED and NEAR_ONES * nearer >= observers)
    )


def _beside(near: Coordinate | None, rtt_us: int) -> Coordinate | None:
    """Return the place of a node whose distance to one other node is known: above that node."""
    if near is None:
        return None
    return msgspec.structs.replace(
        near, height_us=min(FAR_US, max(LEAST_HEIGHT_US, rtt_us - near.height_us))
    )
