"""What a plan may believe of its members' links: what others saw of them, before what they say of themselves.

A member that claims a fast link, or a slow one to be spared, is measured by those that received from it and sent to it: the median of their
sights counts, and its own word only while nobody has seen it, and then never for more than the median of all. A coordinate that most of those
who measured its owner contradict is replaced by the place that they saw. So a lie about oneself changes nothing as soon as two others have
looked, and a false sight of another is one of several.

Integers and the median alone: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.identity import PeerId
from protocol.messages import Ready
from protocol.network.coordinate import ASTRAY, ASTRAY_US, FAR_US, LEAST_HEIGHT_US, Coordinate, estimate_us
from protocol.network.samples import median
from protocol.network.sight import Sight, short_name

UNKNOWN = 0
CONTRADICTED = 2  # sights that must have looked, before their majority overrules a coordinate
SEVERAL = 2  # sights not bounded by their path, before those that were do not count: one alone could be a friend
NEAR_ONES = 4  # one of so many who looked
LEAST_DOUBT_US = 10_000  # estimates this close are not called wrong: jitter of an access, and a row's time does not feel it
ENOUGH = 0.5  # of the members must have been seen before a time is predicted


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One member as a plan takes it. 0 bits a second: unknown. `at` None: nobody knows where it is."""

    up_bits: int
    down_bits: int
    at: Coordinate | None


class Flows(msgspec.Struct, frozen=True, kw_only=True):
    """What one path carries, by its round trip: rate x round trip is much the same for paths of one length; its median is kept for each octave."""

    octaves: tuple[tuple[int, int], ...]  # bits of the round trip in microseconds; bits a second x microseconds. Ascending

    def bits(self, rtt_us: int) -> float:
        """Bits a second; infinite where no flow was ever found to be bounded."""
        if not self.octaves:
            return float("inf")
        octave = rtt_us.bit_length()
        _, product = min(self.octaves, key=lambda entry: (abs(entry[0] - octave), entry[0]))
        return product / max(rtt_us, 1)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan knows of the network, in the order of its members."""

    members: tuple[Known, ...]
    flows: Flows
    failure_rate: float  # of one member in one round
    measured: bool  # enough to predict anything


def view_of(offers: Sequence[tuple[PeerId, Ready]]) -> View:
    """What the Readies of these members come to."""
    index = {short_name(peer): i for i, (peer, _) in enumerate(offers)}
    seen: list[list[tuple[int, Sight]]] = [[] for _ in offers]
    for by, (_, ready) in enumerate(offers):
        for who in {sight.who: sight for sight in ready.sights}.values():  # one word on each, however often it is said
            of = index.get(who.who)
            if of is not None and of != by:
                seen[of].append((by, who))
    ups = _believed([ready.up_bits for _, ready in offers], [_links(views, "up_bits") for views in seen])
    downs = _believed([ready.down_bits for _, ready in offers], [_links(views, "down_bits") for views in seen])
    places = _places([ready.coordinate for _, ready in offers], seen)
    rounds = sum(sight.rounds for views in seen for _, sight in views)
    failed = sum(min(sight.failed, sight.rounds) for views in seen for _, sight in views)
    told = sum(1 for views, place in zip(seen, places, strict=True) if place is not None and any(sight.up_bits for _, sight in views))
    return View(
        members=tuple(Known(up_bits=up, down_bits=down, at=at) for up, down, at in zip(ups, downs, places, strict=True)),
        flows=_flows([sight for views in seen for _, sight in views]),
        failure_rate=failed / rounds if rounds else 0.0,
        measured=told > 0 and told >= ENOUGH * len(offers),
    )


def _links(views: Sequence[tuple[int, Sight]], name: str) -> list[int]:
    """What was seen of a link, by those whose own path did not bound it where they are several."""
    known = [(getattr(sight, name), sight.bounded) for _, sight in views if getattr(sight, name) != UNKNOWN]
    free = [bits for bits, bounded in known if not bounded]
    return free if len(free) >= SEVERAL else [bits for bits, _ in known]


def _believed(claims: Sequence[int], seen: Sequence[Sequence[int]]) -> list[int]:
    told = [median(each) for each in seen if each]
    most = median(told) if told else None
    believed = []
    for claim, each in zip(claims, seen, strict=True):
        if each:
            believed.append(median(each))
        elif most is None or claim == UNKNOWN:
            believed.append(claim)
        else:
            believed.append(min(claim, most))
    return believed


def _places(claims: Sequence[Coordinate | None], seen: Sequence[Sequence[tuple[int, Sight]]]) -> list[Coordinate | None]:
    contradicted = [_contradicted(claim, views, claims) for claim, views in zip(claims, seen, strict=True)]
    places: list[Coordinate | None] = []
    for i, claim in enumerate(claims):
        if claim is not None and not contradicted[i]:
            places.append(claim)
            continue
        near = [(sight.rtt_us, by) for by, sight in seen[i] if claims[by] is not None and not contradicted[by]]
        places.append(_beside(claims[min(near)[1]], min(near)[0]) if near else None)
    return places


def _contradicted(claim: Coordinate | None, views: Sequence[tuple[int, Sight]], claims: Sequence[Coordinate | None]) -> bool:
    """Whether most of those who measured its owner are further from it, or nearer, than half of what they measured."""
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
    # Whoever answers in 15 ms is near, wherever the springs put it: several who saw that need not be the most.
    return looked >= CONTRADICTED and (2 * wrong > looked or (nearer >= CONTRADICTED and NEAR_ONES * nearer >= looked))


def _beside(near: Coordinate | None, rtt_us: int) -> Coordinate | None:
    """Where a node is of which one other knows how far away it is: above that other."""
    if near is None:
        return None
    return msgspec.structs.replace(near, height_us=min(FAR_US, max(LEAST_HEIGHT_US, rtt_us - near.height_us)))


def _flows(sights: Sequence[Sight]) -> Flows:
    by_octave: dict[int, list[int]] = {}
    for sight in sights:
        if sight.flow_bits and sight.rtt_us:
            by_octave.setdefault(sight.rtt_us.bit_length(), []).append(sight.flow_bits * sight.rtt_us)
    return Flows(octaves=tuple((octave, median(products)) for octave, products in sorted(by_octave.items())))
