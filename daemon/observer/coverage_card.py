"""The card of models that the swarm serves: which layers have how many holders, and which none."""

from __future__ import annotations

from html import escape

from daemon.observer.page_lists import when
from protocol.status import Status
from protocol.status.coverage_records import CoverageSummary, LayerSpan, StageSummary
from protocol.status.figures import count, duration, quantity, rate, tail

WIDTH, HEIGHT = 600, 34
LEAST_TEXT = 16
"""The narrowest span, in units of the view box, that holds its number."""

SHOWN_STAGES = 50
"""Stages of the table; /api/v1/status has all of them."""

MANY_HOLDERS = 3
"""From so many holders on, a span has the darkest shade."""


def coverage_card(status: Status) -> str:
    """Return the card as HTML; empty where the swarm serves no model."""
    if not status.coverage:
        return ""
    models = "".join(_model(one) for one in status.coverage)
    return f'<section class="card coverage"><h2>Inference</h2>{models}</section>'


def _model(one: CoverageSummary) -> str:
    return (
        f"<h3>{escape(one.name)} <span class='dim mono'>{escape(one.model[:8])}</span></h3>"
        f"{_verdict(one)}{_bar(one)}{_stages(one)}"
    )


def _verdict(one: CoverageSummary) -> str:
    if one.missing:
        gone = ", ".join(_layers(span) for span in one.spans if not span.holders)
        since = f", since {when(one.missing_since)}" if one.missing_since else ""
        return (
            f'<p class="bad"><span class="glyph" aria-hidden="true">✕</span> Nobody serves'
            f" {escape(gone)}{since}. Generations wait until somebody does.</p>"
        )
    fewest = min((span.holders for span in one.spans), default=0)
    text = (
        f"All {count(one.layers)} layers are served, each by {fewest} or more of"
        f" {quantity(len(one.stages), 'stage')}."
    )
    if fewest == 1:
        single = ", ".join(_layers(span) for span in one.spans if span.holders == 1)
        text += f" One stage alone holds {single}: if it leaves, generations wait."
    if one.gaps:
        text += (
            f" Layers were missing {quantity(one.gaps, 'time')}, the last time for"
            f" {duration(one.last_gap_s)}."
        )
    return f"<p>{escape(text)}</p>"


def _layers(span: LayerSpan) -> str:
    if span.first == span.last:
        return f"layer {span.first}"
    return f"layers {span.first} to {span.last}"


def _bar(one: CoverageSummary) -> str:
    """Return the layers from left to right, each span with the number of its holders."""
    if not one.layers:
        return ""
    unit = WIDTH / one.layers
    parts = []
    for span in one.spans:
        x, width = span.first * unit, (span.last - span.first + 1) * unit
        told = f"{_layers(span)}: {quantity(span.holders, 'holder')}"
        shown = str(span.holders) if span.holders else "✕"
        text = (
            f'<text x="{x + width / 2:.1f}" y="{HEIGHT / 2 + 5:.1f}">{shown}</text>'
            if width >= LEAST_TEXT
            else ""
        )
        parts.append(
            f'<g class="holders-{min(span.holders, MANY_HOLDERS)}"><title>{escape(told)}</title>'
            f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"/>{text}</g>'
        )
    told = "; ".join(f"{_layers(span)}: {span.holders}" for span in one.spans)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Holders by layer. '
        f'{escape(told)}">{"".join(parts)}</svg>'
    )


def _stages(one: CoverageSummary) -> str:
    if not one.stages:
        return ""
    rows = "".join(_row(stage) for stage in one.stages[:SHOWN_STAGES])
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("Stage", "Layers", "Tokens/s", "Room")
    )
    rest = len(one.stages) - SHOWN_STAGES
    more = (
        f'<p class="dim">and {count(rest)} more in <a href="/api/v1/status">/api/v1/status</a></p>'
        if rest > 0
        else ""
    )
    return (
        f"<details><summary>{quantity(len(one.stages), 'stage')}</summary><div class=wide>"
        f"<table class=figures><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{more}</details>"
    )


def _row(stage: StageSummary) -> str:
    layers = stage.last - stage.first + 1
    return (
        f'<tr><th scope="row">{escape(stage.name) or "unnamed"}'
        f' <span class="dim mono" title="{escape(stage.peer)}">{escape(tail(stage.peer))}</span>'
        f"</th><td>{stage.first}-{stage.last}</td>"
        f"<td>{rate(stage.layer_tokens_per_s / layers)}</td>"
        f"<td>{quantity(stage.cache_tokens_free, 'token')}</td></tr>"
    )
