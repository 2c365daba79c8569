"""What a plan may believe of its members' links: what others saw of them, before what they say of
themselves.

A member that claims a fast link, or a slow one to be spared, is measured by those that received
from it and sent to it: the median of their sights counts, and its own word only while nobody has
seen it, and then never for more than the median of all. A coordinate that most of those who
measured its owner contradict is replaced by the place that they saw. So a lie about oneself changes
nothing as soon as two others have looked, and a false sight of another is one of several.

Integers and the median alone: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from protocol.network.samples import median

UNKNOWN = 0
# Sights that must have looked, before their majority overrules a coordinate.
CONTRADICTED = 2
# Sights not bounded by their path, before those that were do not count: one alone could be a
# friend.
SEVERAL = 2
NEAR_ONES = 4  # one of so many who looked
# Estimates this close are not called wrong: jitter of an access, and a row's time does not feel it.
LEAST_DOUBT_US = 10_000
# Of the members must have been seen before a time is predicted.
ENOUGH = 0.5


class MemberLink(msgspec.Struct, frozen=True, kw_only=True):
    """One member as a plan takes it.

    0 bits a second: unknown. `at` None: nobody knows where it is.
    """

    uplink_bps: int
    downlink_bps: int
    at: Coordinate | None


class NetworkSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan knows of the network, in the order of its members."""

    members: tuple[MemberLink, ...]
    flows: Flows
    failure_rate: float  # of one member in one round
    measured: bool  # enough to predict anything
    # The longest round trip that anybody measured: estimates beyond it are errors of coordinates.
    longest_us: int = FAR_US


def snapshot_of(offers: Sequence[tuple[PeerId, Ready]]) -> NetworkSnapshot:
    """What the Readies of these members come to."""
    index = {short_name(peer): i for i, (peer, _) in enumerate(offers)}
    seen: list[list[tuple[int, PeerObservation]]] = [[] for _ in offers]
    for by, (_, ready) in enumerate(offers):
        # One word on each, however often it is said.
        for who in {sight.who: sight for sight in ready.observations}.values():
            of = index.get(who.who)
            if of is not None and of != by:
                seen[of].append((by, who))
    ups = _believed(
        [ready.uplink_bps for _, ready in offers], [_links(views, "uplink_bps") for views in seen]
    )
    downs = _believed(
        [ready.downlink_bps for _, ready in offers],
        [_links(views, "downlink_bps") for views in seen],
    )
    places = _places([ready.coordinate for _, ready in offers], seen)
    rounds = sum(sight.rounds for views in seen for _, sight in views)
    failed = sum(min(sight.failed, sight.rounds) for views in seen for _, sight in views)
    told = sum(
        1
        for views, place in zip(seen, places, strict=True)
        if place is not None and any(sight.uplink_bps for _, sight in views)
    )
    return NetworkSnapshot(
        members=tuple(
            MemberLink(uplink_bps=up, downlink_bps=down, at=at)
            for up, down, at in zip(ups, downs, places, strict=True)
        ),
        flows=flows_of([ready.observations for _, ready in offers], index.keys()),
        failure_rate=failed / rounds if rounds else 0.0,
        longest_us=max((sight.rtt_us for views in seen for _, sight in views), default=FAR_US),
        measured=told > 0 and told >= ENOUGH * len(offers),
    )


def _links(views: Sequence[tuple[int, PeerObservation]], name: str) -> tuple[list[int], list[int]]:
    """What was seen of a link: by those whose own path did not bound it, and by all."""
    known = [
        (getattr(sight, name), sight.bounded)
        for _, sight in views
        if getattr(sight, name) != UNKNOWN
    ]
    return [bits for bits, bounded in known if not bounded], [bits for bits, _ in known]


def _believed(claims: Sequence[int], seen: Sequence[tuple[list[int], list[int]]]) -> list[int]:
    """Several free sights are a measurement.

    Bounded ones say what a link carries at least: beyond that it counts as the typical one. No link
    counts for less than `SEVERAL` saw it carry, up to the typical one: each sees no more than an
    exchange asked of it, and may not know what bounded it.
    """
    free_ones = [median(free) for free, _ in seen if len(free) >= SEVERAL]
    at_least = [sorted(known)[-min(SEVERAL, len(known))] for _, known in seen if known]
    typical = (
        max(median(told) for told in (free_ones, at_least) if told)
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
            (sight.rtt_us, by)
            for by, sight in seen[i]
            if claims[by] is not None and not contradicted[by]
        ]
        places.append(_beside(claims[min(near)[1]], min(near)[0]) if near else None)
    return places


def _contradicted(
    claim: Coordinate | None,
    views: Sequence[tuple[int, PeerObservation]],
    claims: Sequence[Coordinate | None],
) -> bool:
    """Whether most of those who measured its owner are further from it, or nearer, than half of
    what they measured.
    """
    if claim is None:
        return False
    wrong, nearer, looked = 0, 0, 0
    for by, sight in views:
        other = claims[by]
        if other is not None:
            looked += 1
            estimate = estimate_us(claim, other)
            wrong += abs(estimate - sight.rtt_us) > max(sight.rtt_us // 2, LEAST_DOUBT_US)
            nearer += estimate > ASTRAY * sight.rtt_us and estimate - sight.rtt_us > ASTRAY_US
    # Whoever answers in 15 ms is near, wherever the springs put it: several who saw that need not
    # be the most.
    return looked >= CONTRADICTED and (
        2 * wrong > looked or (nearer >= CONTRADICTED and NEAR_ONES * nearer >= looked)
    )


def _beside(near: Coordinate | None, rtt_us: int) -> Coordinate | None:
    """Where a node is of which one other knows how far away it is: above that other."""
    if near is None:
        return None
    return msgspec.structs.replace(
        near, height_us=min(FAR_US, max(LEAST_HEIGHT_US, rtt_us - near.height_us))
    )
