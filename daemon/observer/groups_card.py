"""The card of groups: who averages with whom, drawn by measured distance, and why.

The distance of two dots is the round trip between the networks of two members. The ring around a
dot is the round trip of the member's own access. Network coordinates have three dimensions; the
picture shows the two in which the members differ most. Every dot has the number of its group, and
a list under the picture names the members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from daemon.observer.chart import nice_axis
from protocol.status import Status
from protocol.status.figures import count, duration, quantity, tail
from protocol.status.group_records import GroupMap, GroupMember
from protocol.status.membership import membership_words

WIDTH, HEIGHT, MARGIN = 600, 260, 34
DOT = 11
"""Radius of a dot: room for a number of two digits."""

LEAST_SPAN_MS = 0.2
"""Members of one network differ by less than measurements can tell. They are drawn side by side."""

SHOWN_NAMES = 12
"""Members of one group that the list names."""

COLOURS = 6
"""Groups with a colour of their own. The numbers tell all groups apart."""

Place = tuple[float, float]


def groups_card(status: Status, names: Mapping[str, str]) -> str:
    """Return the card as HTML; empty before the first certificate."""
    groups = status.groups
    if groups is None or not groups.members:
        return ""
    sizes: dict[int, list[GroupMember]] = {}
    for member in sorted(groups.members, key=lambda one: one.group):
        sizes.setdefault(member.group, []).append(member)
    reason = f"{groups.reason[:1].upper()}{groups.reason[1:]}." if groups.reason else ""
    listed = "".join(
        f'<li class="group-{group % COLOURS}"><span aria-hidden="true">{group}</span><p>'
        f"<b>Group {group}</b>: {escape(_named(members, names))}"
        f'<span class="dim">{escape(_spread(members))}</span></p></li>'
        for group, members in sizes.items()
    )
    return f"""<section class="card groups"><h2>Groups of round {count(groups.number)}</h2>
<p>{escape(reason)}</p>{_picture(groups, names, status)}
<ul class="group-list">{listed}</ul></section>"""


def _named(members: Sequence[GroupMember], names: Mapping[str, str]) -> str:
    named = [names.get(one.peer) or tail(one.peer) for one in members[:SHOWN_NAMES]]
    more = len(members) - SHOWN_NAMES
    return ", ".join(named) + (f" and {count(more)} more" if more > 0 else "")


def _spread(members: Sequence[GroupMember]) -> str:
    """Say how far apart the members of a group are."""
    placed = [one for one in members if one.is_measured]
    unknown = len(members) - len(placed)
    parts = []
    if len(placed) > 1:
        longest = max(round_trip_ms(a, b) for i, a in enumerate(placed) for b in placed[:i])
        parts.append(f"round trips up to {duration(longest / 1000)}")
    if unknown:
        parts.append(f"{quantity(unknown, 'place')} not measured yet")
    return f"; {', '.join(parts)}" if parts else ""


def round_trip_ms(one: GroupMember, other: GroupMember) -> float:
    """Return the estimated round trip between two members (`network/coordinate.py`)."""
    between = (one.x_ms - other.x_ms, one.y_ms - other.y_ms, one.z_ms - other.z_ms)
    return math.hypot(*between) + one.height_ms + other.height_ms


def flat_places(members: Sequence[GroupMember]) -> list[Place]:
    """Return the places of members in the plane in which they differ most, in milliseconds.

    Principal components (https://doi.org/10.1080/14786440109462720). The signs are fixed, so that
    the picture does not flip from round to round.
    """
    places = np.array([(one.x_ms, one.y_ms, one.z_ms) for one in members], dtype=np.float64)
    centred = places - places.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    plane = axes[:, ::-1][:, :2]
    signs = np.where(plane[np.abs(plane).argmax(axis=0), (0, 1)] < 0, -1.0, 1.0)
    return [(float(x), float(y)) for x, y in centred @ (plane * signs)]


def _picture(groups: GroupMap, names: Mapping[str, str], status: Status) -> str:
    placed = [one for one in groups.members if one.is_measured]
    if len(placed) < 2:
        return '<p class="empty">The distances between the members are not measured yet.</p>'
    flat = flat_places(placed)
    left, right = min(x for x, _ in flat), max(x for x, _ in flat)
    top, bottom = min(y for _, y in flat), max(y for _, y in flat)
    # One scale for both axes, so that a distance is a distance in every direction.
    scale = min(
        (WIDTH - 2 * MARGIN) / max(right - left, LEAST_SPAN_MS),
        (HEIGHT - 2 * MARGIN) / max(bottom - top, LEAST_SPAN_MS),
    )

    def place(at: Place) -> Place:
        return (
            WIDTH / 2 + (at[0] - (left + right) / 2) * scale,
            HEIGHT / 2 + (at[1] - (top + bottom) / 2) * scale,
        )

    dots = [place(at) for at in flat]
    middles: dict[int, Place] = {}
    for group in {one.group for one in placed}:
        own = [dot for dot, one in zip(dots, placed, strict=True) if one.group == group]
        middles[group] = sum(x for x, _ in own) / len(own), sum(y for _, y in own) / len(own)
    spokes = "".join(
        f'<path class="spoke group-{one.group % COLOURS}" d="M{x:.1f} {y:.1f}L'
        f'{middles[one.group][0]:.1f} {middles[one.group][1]:.1f}"/>'
        for (x, y), one in zip(dots, placed, strict=True)
    )
    drawn = "".join(
        _dot(dot, one, scale, _told(one, names, status))
        for dot, one in zip(dots, placed, strict=True)
    )
    told = (
        f"{quantity(len(placed), 'member')} in {quantity(len(middles), 'group')}, placed by"
        " measured round trips"
    )
    return f"""<figure class="map"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
aria-labelledby="map-title"><title id="map-title">{escape(told)}</title>
{spokes}{drawn}{_scale_bar(scale)}</svg>
<figcaption class="dim">Distance: the round trip between two networks. Ring: the round trip of a
member's own access. Number: the group.</figcaption></figure>"""


def _told(one: GroupMember, names: Mapping[str, str], status: Status) -> str:
    name = names.get(one.peer) or tail(one.peer)
    access = f"its access takes {duration(one.height_ms / 1000)}"
    votes = membership_words(status.membership, one.peer) if status.membership else ""
    return f"{name}: group {one.group}, {access}{f'; {votes}' if votes else ''}"


def _dot(at: Place, one: GroupMember, scale: float, told: str) -> str:
    x, y = at
    ring = min(one.height_ms * scale, HEIGHT / 2)
    return (
        f'<g class="member group-{one.group % COLOURS}"><title>{escape(told)}</title>'
        f'<circle class="access" cx="{x:.1f}" cy="{y:.1f}" r="{max(DOT, ring):.1f}"/>'
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{DOT}"/>'
        f'<text x="{x:.1f}" y="{y:.1f}">{one.group}</text></g>'
    )


def _scale_bar(scale: float) -> str:
    """Return a bar of a round number of milliseconds, about a fifth of the picture."""
    span_ms = WIDTH / 5 / scale
    axis = nice_axis(0.0, span_ms, most=1)
    length = axis.high if axis.high * scale < WIDTH / 2 else axis.high / 2
    label = duration(length / 1000)
    return (
        f'<path class="bar" d="M8 {HEIGHT - 8}h{length * scale:.1f}"/>'
        f'<text class="bar-label" x="8" y="{HEIGHT - 14}">{escape(label)}</text>'
    )
