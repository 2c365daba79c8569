"""Journal events of inference: which layers of a model the swarm serves."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from protocol.identity import PeerId
from protocol.journal.base import JournalEvent


class ServedStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that announces itself.

    It serves the layers from `first` up to, but not including, `stop`.
    `layer_tokens_per_s` is its speed in tokens x layers a second.
    """

    peer: PeerId
    name: str
    first: int
    stop: int
    layer_tokens_per_s: float
    cache_tokens_free: int


class CoverageReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The stages of one model, as far as this node knows them."""

    # The model's id, hex.
    model: str
    name: str
    layers: int
    stages: tuple[ServedStage, ...]
    durable: ClassVar[bool] = False


class CoverageChanged(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Layers of a model lost their last holder, or all layers are served again.

    `missing` says which layers nobody serves, in words; empty where all are served. `gap_s` is how
    long layers were missing before that; 0 where none were.
    """

    model: str
    name: str
    missing: str
    stages: int
    gap_s: float = 0.0
