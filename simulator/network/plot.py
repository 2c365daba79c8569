"""Round time and goodput against group size: in the terminal, and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from simulator.network.comparison import ADAPTIVE, PolicyRecord
from simulator.playback.plot import HEIGHT, MARGIN, STYLE, WIDTH

BAR = 40  # characters
MIDDLE = HEIGHT // 2


def lines(records: Sequence[PolicyRecord]) -> str:
    """A bar for each policy, the shortest the best."""
    most = max(record.round_seconds_median for record in records)
    said = [
        f"{'policy':<12} {'row':>5} {'round s':>9} {'predicted':>9} {'far MB':>9} {'goodput':>8}"
    ]
    for record in records:
        told = (
            "-"
            if record.predicted_seconds_median is None
            else f"{record.predicted_seconds_median:.2f}"
        )
        bar = "█" * max(1, round(BAR * record.round_seconds_median / most))
        said.append(
            f"{record.policy:<12} {record.row_size_median:>5g} {record.round_seconds_median:>9.2f} {told:>9}"
            f" {record.inter_region_bytes / 1e6:>9.0f} {record.goodput:>8.3f} {bar}"
        )
    return "\n".join(said)


def svg(records: Sequence[PolicyRecord]) -> str:
    """Two curves over the fixed sizes, round time above goodput; the dashed lines are adaptive."""
    fixed = [record for record in records if record.policy != ADAPTIVE]
    adaptive = next((record for record in records if record.policy == ADAPTIVE), None)
    one = records[0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="t" x="{MARGIN}" y="26">{escape(one.profile)}, {one.nodes} nodes, seed {one.seed}</text>',
    ]
    times = [record.round_seconds_median for record in fixed]
    parts += _panel(
        "seconds a round",
        times,
        adaptive.round_seconds_median if adaptive else None,
        fixed,
        MARGIN,
        MIDDLE - 30,
    )
    goodputs = [record.goodput for record in fixed]
    parts += _panel(
        "goodput: share of time computing",
        goodputs,
        adaptive.goodput if adaptive else None,
        fixed,
        MIDDLE + 30,
        HEIGHT - MARGIN,
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    name: str,
    values: list[float],
    adaptive: float | None,
    fixed: Sequence[PolicyRecord],
    top: int,
    bottom: int,
) -> list[str]:
    most = max([*values, adaptive or 0.0]) or 1.0

    def x(i: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (i + 0.5) / max(len(fixed), 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / most

    path = "".join(
        f"{'L' if i else 'M'}{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values)
    )
    parts = [
        f'<path class="axis" d="M{MARGIN},{top}V{bottom}H{WIDTH - MARGIN}"/>',
        f'<path class="rounds" d="{path}"/>' if path else "",
        f'<text x="{MARGIN + 6}" y="{top - 6}">{escape(name)}; dashed: adaptive</text>',
        f'<text x="{MARGIN - 6}" y="{top + 4}" text-anchor="end">{most:.3g}</text>',
    ]
    parts += [
        f'<text x="{x(i):.1f}" y="{bottom + 16}" text-anchor="middle">{r.policy[6:]}</text>'
        for i, r in enumerate(fixed)
    ]
    if adaptive is not None:
        parts.append(f'<path class="ideal" d="M{MARGIN},{y(adaptive):.1f}H{WIDTH - MARGIN}"/>')
    return parts
