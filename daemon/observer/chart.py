"""The loss curves as SVG, drawn on the server and readable without JavaScript.

The picture is stretched to its box (`preserveAspectRatio="none"`) with strokes that do not scale.
Its labels are HTML around it, so that they keep their size on a telephone. Its title and
description are for screen readers.

The held-out loss is the figure that counts: it comes from samples that no member trains on. The
training loss is what the members claim for their own data. With a reference curve the horizontal
axis is the time, else the samples certified.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from html import escape

import msgspec

from daemon.observer.member_marks import marks
from protocol.status import KEPT_POINTS, HeldOutPoint, LossPoint
from protocol.status.figures import compact, duration, loss, quantity
from protocol.status.group_records import MemberMove
from protocol.status.reference import ReferenceCurve

# Size of the view box; it has at least as many columns as the status has points.
WIDTH = 600
HEIGHT = 200
# Points with a tooltip; each is five pixels wide.
MAX_HOVERED = 120
# A member's false claim does not flatten the other curve: the axis ends this many times the
# training losses' range beyond them, and higher points are drawn at its end.
MAX_RANGE = 3.0
assert KEPT_POINTS <= WIDTH

Place = tuple[float, float]
Placed = tuple[float, str, float]
"""A horizontal place in the units of the axis, the tooltip there, and its time (unix seconds)."""


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """An axis from `low` to `high` in `steps` equal steps, all of them round numbers."""

    low: float
    high: float
    steps: int

    def labels(self) -> list[float]:
        """Return the labels, lowest first."""
        return [self.low + (self.high - self.low) * i / self.steps for i in range(self.steps + 1)]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the chart: its CSS class, its name, and its (along, loss) points."""

    kind: str
    name: str
    points: tuple[Place, ...]


def nice_axis(low: float, high: float, most: int = 5) -> Axis:
    """Return the shortest axis that contains `low` and `high`.

    It has at most `most` steps, each 1, 2, 2.5 or 5 times a power of ten.
    """
    if high - low < max(abs(high), 1e-9) * 1e-6:
        pad = max(abs(high) * 0.1, 1e-3)
        low, high = low - pad, high + pad
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * magnitude
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            return Axis(low=first * step, high=last * step, steps=max(1, last - first))
    return Axis(low=low, high=high, steps=1)


def loss_chart(
    points: Sequence[LossPoint],
    held_out: Sequence[HeldOutPoint] = (),
    reference: ReferenceCurve | None = None,
    moves: Sequence[MemberMove] = (),
) -> str:
    """Return the curves with their caption, as HTML. Joins and leaves (`moves`) are marked."""
    of_time = reference is not None
    what = "against time" if of_time else "against samples certified"
    caption = f'<figcaption>Loss <span class="dim">{what}</span></figcaption>'
    if not points and not held_out:
        return (
            f'<figure class="chart">{caption}<p class="empty">The curve begins with the first'
            f" certified round.</p></figure>"
        )
    began_at = reference.began_at if reference is not None else 0.0

    def along(point: LossPoint | HeldOutPoint) -> float:
        return max(0.0, point.at - began_at) if of_time else float(point.samples)

    series = [
        Series(
            kind="training",
            name="training, as the members claim",
            points=tuple((along(point), point.loss) for point in points),
        ),
        Series(
            kind="held-out",
            name="held-out",
            points=tuple((along(point), point.loss) for point in held_out),
        ),
    ]
    if reference is not None:
        shown = max((place for one in series for place, _ in one.points), default=0.0)
        alone = tuple((at.seconds, at.loss) for at in reference.points if at.seconds <= shown)
        series.append(Series(kind="reference", name=reference.label, points=alone))
    hovered = [(along(point), _training_told(point), point.at) for point in points]
    hovered += [(along(point), _held_out_told(point), point.at) for point in held_out]
    told = _told(points, held_out)
    placed = sorted((at, x) for x, _, at in hovered)

    def marked(column: Callable[[float], float]) -> str:
        """Mark each move at the first point that is not older."""

        def beside(at: float) -> float | None:
            after = bisect_left(placed, (at, -math.inf))
            return column(placed[after][1]) if 0 < after < len(placed) else None

        return marks(moves, beside, HEIGHT)

    return _figure(
        caption,
        [one for one in series if one.points],
        sorted(hovered),
        told,
        of_time,
        marked,
    )


def _training_told(point: LossPoint) -> str:
    after = quantity(point.samples, "sample")
    return f"round {point.number}: training loss {loss(point.loss)} after {after}"


def _held_out_told(point: HeldOutPoint) -> str:
    scored = f"{quantity(point.scored, 'sample')} scored by {quantity(point.scorers, 'member')}"
    return f"round {point.number}: held-out loss {loss(point.loss)}, {scored}"


def _told(points: Sequence[LossPoint], held_out: Sequence[HeldOutPoint]) -> str:
    parts = []
    if points:
        first, last = points[0], points[-1]
        parts.append(
            f"Training loss, as the members claim, from {loss(first.loss)} in round {first.number}"
            f" to {loss(last.loss)} in round {last.number}, after"
            f" {quantity(last.samples, 'sample')}."
        )
    if held_out:
        first_held, last_held = held_out[0], held_out[-1]
        parts.append(
            f"Held-out loss from {loss(first_held.loss)} in round {first_held.number} to"
            f" {loss(last_held.loss)} in round {last_held.number}."
        )
    return " ".join(parts)


def _vertical(series: Sequence[Series]) -> Axis:
    """Return the vertical axis; only the training losses may stretch it without a limit."""
    own = next((one for one in series if one.kind == "training"), series[0])
    low, high = min(y for _, y in own.points), max(y for _, y in own.points)
    room = MAX_RANGE * max(high - low, abs(high) * 0.1, 1e-3)
    others = [min(max(y, low - room), high + room) for one in series for _, y in one.points]
    return nice_axis(min(low, *others), max(high, *others))


def _figure(
    caption: str,
    series: Sequence[Series],
    hovered: Sequence[Placed],
    told: str,
    of_time: bool,
    marked: Callable[[Callable[[float], float]], str],
) -> str:
    vertical = _vertical(series)
    least = min(one.points[0][0] for one in series)
    most = max(1.0, *(one.points[-1][0] for one in series))
    # The axis begins at zero unless that would waste a fifth of the width.
    left = 0.0 if least < most * 0.2 else least
    span = max(most - left, 1.0)

    def place(point: Place) -> Place:
        up = (point[1] - vertical.low) / (vertical.high - vertical.low)
        return (point[0] - left) / span * WIDTH, HEIGHT * (1 - min(max(up, 0.0), 1.0))

    moved = marked(lambda x: (x - left) / span * WIDTH)
    grid = "".join(
        f"M0 {HEIGHT * i / vertical.steps:.1f}H{WIDTH}" for i in range(vertical.steps + 1)
    )
    lines = "".join(_line(one.kind, [place(point) for point in one.points]) for one in series)
    ticks = "".join(f"<li>{escape(f'{value:.4g}')}</li>" for value in reversed(vertical.labels()))
    text: Callable[[float], str] = duration if of_time else compact
    labels = "".join(f"<li>{escape(text(left + span * part))}</li>" for part in (0, 0.5, 1))
    legend = "".join(
        f'<li class="{one.kind}"><span aria-hidden="true"></span>{escape(one.name)}</li>'
        for one in series
    )
    return f"""<figure class="chart">{caption}<ul class="curves">{legend}</ul>
<div class="plot"><ol class="ticks" aria-hidden="true">{ticks}</ol>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" tabindex="0"
aria-labelledby="loss-title loss-told">
<title id="loss-title">Loss curves</title><desc id="loss-told">{escape(told)}</desc>
<path class="grid" d="{grid}"/>{moved}{lines}
{_hover([((x - left) / span * WIDTH, words, at) for x, words, at in hovered])}</svg></div>
<ol class="along" aria-hidden="true">{labels}</ol><p class="told">{escape(told)}</p></figure>"""


def _line(kind: str, places: Sequence[Place]) -> str:
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in (places if len(places) <= 60 else places[-1:]))
    # No area below the line: the axis does not begin at zero, so an area would mean nothing.
    lines = f'<path class="line" d="{line}"/><path class="dots" d="{dots}"/>'
    return f'<g class="{kind}">{lines}</g>'


def _hover(places: Sequence[Placed]) -> str:
    """Invisible columns whose tooltips show the figures."""
    every = max(1, math.ceil(len(places) / MAX_HOVERED))
    chosen = places[(len(places) - 1) % every :: every] if places else ()
    wide = WIDTH / max(1, len(chosen))
    return "".join(
        f'<rect class="hit" data-at="{at:.3f}" x="{x - wide / 2:.1f}" y="0" width="{wide:.1f}"'
        f' height="{HEIGHT}"><title>{escape(words)}</title></rect>'
        for x, words, at in chosen
    )
