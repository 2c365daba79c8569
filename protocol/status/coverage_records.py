"""The records of models that the swarm serves.

As in `records.py`, the field names are a contract, and the imports must load quickly.
"""

from __future__ import annotations

import msgspec

from protocol.status.peer_records import PeerId

KEPT_MODELS = 4
"""Models of a status. A swarm serves one, seldom two; the one reported longest ago goes first."""

KEPT_STAGES = 256
"""Stages of one model: as many as a node remembers."""

MAX_LAYERS = 1024
"""Layers of one model, as in `protocol.inference.layers`."""


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A node that serves the layers from `first` to `last`, both included, counted from 0."""

    peer: PeerId
    name: str
    first: int
    last: int
    layer_tokens_per_s: float
    cache_tokens_free: int


class LayerSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Layers in a row, from `first` to `last`, that equally many stages hold."""

    first: int
    last: int
    holders: int


class CoverageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves which layers of one model.

    `missing_since` is when layers lost their last holder; 0 while all are served. `gaps` counts how
    often that happened since the start, and `last_gap_s` is how long the last gap lasted.
    """

    model: str
    name: str
    layers: int
    spans: tuple[LayerSpan, ...]
    stages: tuple[StageSummary, ...]
    missing_since: float = 0.0
    gaps: int = 0
    last_gap_s: float = 0.0

    @property
    def missing(self) -> int:
        """The number of layers that nobody serves."""
        return sum(one.last - one.first + 1 for one in self.spans if not one.holders)
