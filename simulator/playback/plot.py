"""A picture of a run for people who would rather look: rounds certified over time, above the number
of nodes that live.

Plain SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from simulator.playback.report import StoryReport

WIDTH, HEIGHT, MARGIN = 860, 420, 56
# Of the height is for rounds, the rest for nodes.
SPLIT = 0.7
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.t{font-size:15px;font-weight:600}.axis{stroke:#999;fill:none}"
    ".ideal{stroke:#bbb;stroke-dasharray:5 5;fill:none}.rounds{stroke:#0b6e4f;stroke-width:2;fill:none}"
    ".nodes{stroke:#b3541e;stroke-width:1.5;fill:#b3541e22}"
)


class _Frame:
    """Where values of a panel go on the page."""

    def __init__(self, top: float, bottom: float, most_x: float, most_y: float) -> None:
        self.top, self.bottom = top, bottom
        self.most_x, self.most_y = max(most_x, 1e-9), max(most_y, 1.0)

    def x(self, value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * value / self.most_x

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * value / self.most_y

    def steps(self, points: Sequence[tuple[float, int]], until: float) -> str:
        """A line that keeps each value until the next."""
        path, last = (
            [
                f"M{self.x(0):.1f},{self.y(0 if points and points[0][0] > 0 else points[0][1] if points else 0):.1f}"
            ],
            0.0,
        )
        for at, value in points:
            path.append(f"H{self.x(at):.1f}V{self.y(value):.1f}")
            last = at
        return "".join(path) + (f"H{self.x(until):.1f}" if until > last else "")


def plot(report: StoryReport, round_s: float) -> str:
    """The SVG.

    `round_s` is how long a round would take if nothing went wrong; the dashed line is that.
    """
    until = report.virtual_seconds
    middle = MARGIN + (HEIGHT - 2 * MARGIN) * SPLIT
    ideal = int(until / round_s)
    upper = _Frame(MARGIN, middle - 16, until, max(ideal, report.rounds_certified))
    lower = _Frame(middle + 16, HEIGHT - MARGIN, until, report.nodes)
    goodput = (
        ""
        if report.goodput is None
        else f", goodput {report.goodput:.3f} (bound {report.goodput_bound or 1:.3f})"
    )
    alive = lower.steps(report.alive, until)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="t" x="{MARGIN}" y="26">{escape(report.scenario)}: {report.rounds_certified} rounds, {report.nodes} nodes{goodput}</text>',
        f'<path class="axis" d="M{MARGIN},{upper.top}V{upper.bottom}H{WIDTH - MARGIN}M{MARGIN},{lower.top}V{lower.bottom}H{WIDTH - MARGIN}"/>',
        f'<path class="ideal" d="M{upper.x(0)},{upper.y(0)}L{upper.x(until):.1f},{upper.y(until / round_s):.1f}"/>',
        f'<path class="rounds" d="{upper.steps(report.progress, until)}"/>',
        f'<path class="nodes" d="{alive}V{lower.bottom:.1f}H{lower.x(0):.1f}Z"/>',
        f'<text x="{MARGIN - 8}" y="{upper.top + 4}" text-anchor="end">{upper.most_y:g}</text>',
        f'<text x="{MARGIN - 8}" y="{lower.top + 4}" text-anchor="end">{lower.most_y:g}</text>',
        f'<text x="{MARGIN + 6}" y="{upper.top + 4}">rounds certified; dashed: without faults</text>',
        f'<text x="{MARGIN + 6}" y="{lower.top - 4}">nodes alive</text>',
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN + 20}" text-anchor="end">{until:g} s of virtual time</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
