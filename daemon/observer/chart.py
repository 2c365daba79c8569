"""The loss curve as SVG, drawn on the server and readable without JavaScript.

The picture is stretched to its box (`preserveAspectRatio="none"`) with strokes that do not scale.
Its labels are HTML around it, so that they keep their size on a telephone. Its title and
description are for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import msgspec

from protocol.status import KEPT_POINTS, LossPoint
from protocol.status.figures import compact, loss, quantity

# Size of the view box; it has at least as many columns as the status has points.
WIDTH = 600
HEIGHT = 200
# Points with a tooltip; each is five pixels wide.
MAX_HOVERED = 120
assert KEPT_POINTS <= WIDTH


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """An axis from `low` to `high` in `steps` equal steps, all of them round numbers."""

    low: float
    high: float
    steps: int

    def labels(self) -> list[float]:
        """Return the labels, lowest first."""
        return [self.low + (self.high - self.low) * i / self.steps for i in range(self.steps + 1)]


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


def _figures(point: LossPoint) -> str:
    return escape(
        f"round {point.number}: loss {loss(point.loss)} after {quantity(point.samples, 'sample')}"
    )


def _hover(places: Sequence[tuple[float, float]], points: Sequence[LossPoint]) -> str:
    """Invisible columns whose tooltips show the figures."""
    every = max(1, math.ceil(len(points) / MAX_HOVERED))
    chosen = range((len(points) - 1) % every, len(points), every)
    wide = WIDTH / max(1, len(chosen))
    return "".join(
        f'<rect class="hit" x="{places[i][0] - wide / 2:.1f}" y="0" width="{wide:.1f}"'
        f' height="{HEIGHT}">'
        f"<title>{_figures(points[i])}</title></rect>"
        for i in chosen
    )


def loss_chart(points: Sequence[LossPoint]) -> str:
    """Return the curve with its caption, as HTML."""
    caption = '<figcaption>Loss <span class="dim">against samples certified</span></figcaption>'
    if not points:
        return (
            f'<figure class="chart">{caption}<p class="empty">The curve begins with the first'
            f" certified round.</p></figure>"
        )
    low, high = min(point.loss for point in points), max(point.loss for point in points)
    vertical = nice_axis(low, high)
    # Samples only grow, so the first point has the fewest.
    least, most = points[0].samples, max(points[-1].samples, 1)
    # The axis begins at zero unless that would waste a fifth of the width.
    left = 0 if least < most * 0.2 else least
    span = max(most - left, 1)
    places = [
        (
            (point.samples - left) / span * WIDTH,
            HEIGHT * (1 - (point.loss - vertical.low) / (vertical.high - vertical.low)),
        )
        for point in points
    ]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    area = f"{line}L{places[-1][0]:.1f} {HEIGHT}L{places[0][0]:.1f} {HEIGHT}Z"
    grid = "".join(
        f"M0 {HEIGHT * i / vertical.steps:.1f}H{WIDTH}" for i in range(vertical.steps + 1)
    )
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in (places if len(places) <= 60 else places[-1:]))
    ticks = "".join(f"<li>{escape(f'{value:.4g}')}</li>" for value in reversed(vertical.labels()))
    along = "".join(f"<li>{escape(compact(left + span * part))}</li>" for part in (0, 0.5, 1))
    first, last = points[0], points[-1]
    told = (
        f"From {loss(first.loss)} in round {first.number} to {loss(last.loss)} in round"
        f" {last.number}, after {quantity(last.samples, 'sample')}."
    )
    return f"""<figure class="chart">{caption}
<div class="plot"><ol class="ticks" aria-hidden="true">{ticks}</ol>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"
aria-labelledby="loss-title loss-told">
<title id="loss-title">Loss curve</title><desc id="loss-told">{escape(told)}</desc>
<path class="grid" d="{grid}"/><path class="area" d="{area}"/><path class="line" d="{line}"/><path
class="dots" d="{dots}"/>
{_hover(places, points)}</svg></div>
<ol class="along" aria-hidden="true">{along}</ol><p class="told">{escape(told)}</p></figure>"""
