"""How reports of served models change the state behind a status."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from msgspec.structs import replace

from protocol import journal
from protocol.status.coverage_records import (
    KEPT_MODELS,
    KEPT_STAGES,
    MAX_LAYERS,
    CoverageSummary,
    LayerSpan,
    StageSummary,
)
from protocol.status.figures import clean, natural, whole
from protocol.status.state import MAX_NAME_CHARS, StatusState


def coverage_report(state: StatusState, event: journal.CoverageReport) -> None:
    model = clean(event.model, MAX_NAME_CHARS)
    layers = min(whole(event.layers), MAX_LAYERS)
    stages = tuple(
        StageSummary(
            peer=clean(one.peer, MAX_NAME_CHARS),
            name=clean(one.name, MAX_NAME_CHARS),
            first=whole(one.first),
            last=min(whole(one.stop), layers) - 1,
            layer_tokens_per_s=natural(one.layer_tokens_per_s),
            cache_tokens_free=whole(one.cache_tokens_free),
        )
        for one in event.stages[:KEPT_STAGES]
        if whole(one.first) < min(whole(one.stop), layers)
    )
    known = state.coverage.pop(model, None)
    state.coverage[model] = CoverageSummary(
        model=model,
        name=clean(event.name, MAX_NAME_CHARS),
        layers=layers,
        spans=_spans(stages, layers),
        stages=stages,
        missing_since=known.missing_since if known else 0.0,
        gaps=known.gaps if known else 0,
        last_gap_s=known.last_gap_s if known else 0.0,
    )
    while len(state.coverage) > KEPT_MODELS:
        del state.coverage[next(iter(state.coverage))]


def coverage_changed(state: StatusState, event: journal.CoverageChanged) -> None:
    model = clean(event.model, MAX_NAME_CHARS)
    known = state.coverage.get(model)
    if known is None:
        return
    if event.missing:
        since = known.missing_since or natural(event.at)
        gaps = known.gaps + (not known.missing_since)
        state.coverage[model] = replace(known, missing_since=since, gaps=gaps)
        return
    gap_s = natural(event.gap_s) or known.last_gap_s
    state.coverage[model] = replace(known, missing_since=0.0, last_gap_s=gap_s)


def _spans(stages: Sequence[StageSummary], layers: int) -> tuple[LayerSpan, ...]:
    """Return the layers in a row that equally many stages hold."""
    counts = [0] * layers
    for one in stages:
        for layer in range(one.first, one.last + 1):
            counts[layer] += 1
    spans = []
    first = 0
    for holders, group in groupby(counts):
        last = first + len(list(group)) - 1
        spans.append(LayerSpan(first=first, last=last, holders=holders))
        first = last + 1
    return tuple(spans)
