"""The charts over time beside the loss: speed, members, and the time of rounds by phase.

They are SVG like the loss chart, drawn on the server and readable without JavaScript. Every chart
marks its points with their time (`data-at`), so that the script can move one cursor over all four.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from daemon.observer.chart import HEIGHT, MAX_HOVERED, WIDTH, nice_axis
from daemon.observer.member_marks import marks, moved_words
from protocol.status.figures import compact, duration, quantity, rate
from protocol.status.group_records import MemberMove
from protocol.status.round_points import PHASES, RoundPoint

PHASE_WORDS = ("training", "waiting", "sending", "averaging", "voting")
WHOLE_WORDS = "between certificates"
MAX_MARKS = 60
"""Marks of failed tries in one chart: more would hide the lines."""

Place = tuple[float, float]


class TimeScale:
    """Where a time is on the horizontal axis; the same for all charts of a page."""

    def __init__(self, points: Sequence[RoundPoint]) -> None:
        """`points` are at least one, the oldest first."""
        self.first, self.last = points[0].at, max(points[-1].at, points[0].at + 1.0)

    def x(self, at: float) -> float:
        """Return the column of a time, in units of the view box."""
        return (at - self.first) / (self.last - self.first) * WIDTH

    def labels(self) -> str:
        """Return the labels below a chart: how long ago its beginning, middle and end were."""
        span = self.last - self.first
        ages = (f"{duration(span)} before", f"{duration(span / 2)} before", "last round")
        return "".join(f"<li>{escape(age)}</li>" for age in ages)


def time_charts(
    points: Sequence[RoundPoint],
    moves: Sequence[MemberMove] = (),
    names: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the three charts as HTML; a sentence where no round is certified.

    `moves` are marked in every chart; `names` has the names of peers.
    """
    if not points:
        return '<p class="empty">The charts begin with the first certified round.</p>'
    scale = TimeScale(points)
    shown = [move for move in moves if scale.first <= move.at <= scale.last]
    marked = marks(shown, scale.x, HEIGHT)
    return (
        _speed(points, scale, marked)
        + _members(points, scale, shown, names)
        + _round_times(points, scale, marked)
    )


def _speed(points: Sequence[RoundPoint], scale: TimeScale, marked: str) -> str:
    known = [(one, one.samples_per_second) for one in points]
    values = [(one, value) for one, value in known if value is not None]
    told = (
        f"{rate(values[-1][1])} samples a second in the last round" if values else "not known yet"
    )
    top = max((value for _, value in values), default=1.0)
    axis = nice_axis(0.0, top)
    places = [(scale.x(one.at), _y(value, axis.high)) for one, value in values]
    words = [
        (one, f"round {one.number}: {rate(value)} samples/s" if value is not None else "")
        for one, value in known
    ]
    lines = marked + _line("held-out", places)
    return _figure("Speed", "samples/s, certified", told, axis.high, lines, words, scale)


def _members(
    points: Sequence[RoundPoint],
    scale: TimeScale,
    moves: Sequence[MemberMove],
    names: Mapping[str, str],
) -> str:
    axis = nice_axis(0.0, float(max(one.members for one in points)) or 1.0)
    members = [(scale.x(one.at), _y(one.members, axis.high)) for one in points]
    counted = [(scale.x(one.at), _y(one.counted, axis.high)) for one in points]
    joins = sum(bool(move.joined) for move in moves)
    leaves = sum(bool(move.left) for move in moves)
    told = (
        f"{quantity(points[-1].members, 'member')} in the last round, {points[-1].counted} counted;"
        f" {quantity(joins, 'join')} and {quantity(leaves, 'leave')} in view"
    )
    lines = (
        marks(moves, scale.x, HEIGHT)
        + _line("training", _steps(members))
        + _line("held-out", _steps(counted))
    )
    words = []
    before = scale.first
    for one in points:
        text = f"round {one.number}: {one.counted} of {quantity(one.members, 'member')} counted"
        moved = moved_words([move for move in moves if before < move.at <= one.at], names)
        words.append((one, f"{text}; {moved}" if moved else text))
        before = one.at
    legend = _legend((("training", "members"), ("held-out", "counted")))
    return _figure(
        "Members", "dashed: joins, dotted: leaves", told, axis.high, lines, words, scale, legend
    )


def _round_times(points: Sequence[RoundPoint], scale: TimeScale, marked: str) -> str:
    has_phases = any(one.phases for one in points)
    tops = [max(sum(one.phases), one.took_s) for one in points]
    axis = nice_axis(0.0, max(tops) or 1.0)
    lines = ""
    if has_phases:
        known = [one for one in points if one.phases]
        below = [0.0] * len(known)
        for place in range(len(PHASES)):
            above = [low + one.phases[place] for low, one in zip(below, known, strict=True)]
            lines += _band(
                f"phase-{place}",
                [
                    (scale.x(one.at), _y(low, axis.high), _y(high, axis.high))
                    for one, low, high in zip(known, below, above, strict=True)
                ],
            )
            below = above
    took = [(scale.x(one.at), _y(one.took_s, axis.high)) for one in points if one.took_s]
    lines += _line("training", took)
    failed = [one for one in points if one.failed][-MAX_MARKS:]
    lines += marked + "".join(
        f'<path class="failed-try" d="M{scale.x(one.at):.1f} {HEIGHT}v-12"/>' for one in failed
    )
    tries = sum(one.failed for one in points)
    told = f"last {duration(points[-1].took_s or None)}; {quantity(tries, 'try', 'tries')} failed"
    words = [(one, _round_words(one)) for one in points]
    kinds = [("training", WHOLE_WORDS)]
    if has_phases:
        kinds += [(f"phase-{i}", word) for i, word in enumerate(PHASE_WORDS)]
    return _figure(
        "Round time",
        "seconds; marks below: failed tries",
        told,
        axis.high,
        lines,
        words,
        scale,
        _legend(kinds),
    )


def _round_words(one: RoundPoint) -> str:
    text = f"round {one.number}: {duration(one.took_s or None)}"
    parts = [
        f"{word} {duration(seconds)}"
        for word, seconds in zip(PHASE_WORDS, one.phases, strict=False)
        if seconds
    ]
    failed = [quantity(one.failed, "failed try", "failed tries")] if one.failed else []
    return ", ".join([text, *parts, *failed])


def _y(value: float, top: float) -> float:
    return HEIGHT * (1 - min(max(value / top, 0.0), 1.0)) if top > 0 else float(HEIGHT)


def _steps(places: Sequence[Place]) -> list[Place]:
    """Return the corners of a line that changes at its points: members are whole numbers."""
    found: list[Place] = []
    for x, y in places:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return found


def _line(kind: str, places: Sequence[Place]) -> str:
    if not places:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<g class="{kind}"><path class="line" d="{path}"/></g>'


def _band(kind: str, places: Sequence[tuple[float, float, float]]) -> str:
    over = "L".join(f"{x:.1f} {high:.1f}" for x, _, high in places)
    under = "L".join(f"{x:.1f} {low:.1f}" for x, low, _ in reversed(places))
    return f'<path class="band {kind}" d="M{over}L{under}Z"/>'


def _legend(kinds: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<li class="{kind}"><span aria-hidden="true"></span>{escape(name)}</li>'
        for kind, name in kinds
    )
    return f'<ul class="curves">{items}</ul>'


def _figure(
    title: str,
    what: str,
    told: str,
    top: float,
    lines: str,
    words: Sequence[tuple[RoundPoint, str]],
    scale: TimeScale,
    legend: str = "",
) -> str:
    name = title.lower().replace(" ", "-")
    ticks = "".join(f"<li>{escape(compact_value(top * part))}</li>" for part in (1.0, 0.5, 0.0))
    grid = "".join(f"M0 {HEIGHT * part:.1f}H{WIDTH}" for part in (0.0, 0.5, 1.0))
    every = max(1, math.ceil(len(words) / MAX_HOVERED))
    shown = words[(len(words) - 1) % every :: every]
    wide = WIDTH / len(shown)
    hits = "".join(
        f'<rect class="hit" data-at="{one.at:.3f}" x="{scale.x(one.at) - wide / 2:.1f}" y="0"'
        f' width="{wide:.1f}" height="{HEIGHT}"><title>{escape(text)}</title></rect>'
        for one, text in shown
        if text
    )
    return f"""<figure class="chart small"><figcaption>{escape(title)}
<span class="dim">{escape(what)}</span></figcaption>{legend}<div class="plot">
<ol class="ticks" aria-hidden="true">{ticks}</ol><svg viewBox="0 0 {WIDTH} {HEIGHT}"
preserveAspectRatio="none" role="img" tabindex="0" aria-labelledby="{name}-title {name}-told">
<title id="{name}-title">{escape(title)}</title><desc id="{name}-told">{escape(told)}</desc>
<path class="grid" d="{grid}"/>{lines}{hits}</svg></div>
<ol class="along" aria-hidden="true">{scale.labels()}</ol>
<p class="told">{escape(told)}</p></figure>"""


def compact_value(value: float) -> str:
    """Write a tick: whole where it is large, with three figures where it is small."""
    return compact(value) if abs(value) >= 100 or value == 0 else f"{value:.3g}"
