"""What a generation reports: lost hops, waits, replays and audits."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.identity import PeerId
from protocol.inference.audit import StageAudited
from protocol.inference.layers import LayerRange

LossKind = Literal[
    # The stream broke, and the stage cannot be reached.
    "broken",
    # No answer came before the deadline.
    "slow",
    # The stage does not hold the generation any more.
    "forgot",
    # The stage has no room.
    "full",
    # The stage refuses the request, or its answer breaks a rule.
    "refused",
]


class HopWasLost(msgspec.Struct, frozen=True, kw_only=True):
    """A stage cannot go on with the generation."""

    peer: PeerId
    layers: LayerRange
    kind: LossKind
    detail: str


class WaitsForLayers(msgspec.Struct, frozen=True, kw_only=True):
    """No chain exists. `full` says that stages hold the layers, but have no room."""

    missing: tuple[LayerRange, ...]
    full: bool


class HopsReplayed(msgspec.Struct, frozen=True, kw_only=True):
    """Other stages took over `layers`, after they computed `tokens` tokens again."""

    layers: LayerRange
    peers: tuple[PeerId, ...]
    tokens: int
    # Whether every result had the bits that it had before.
    exact: bool
    # Since the loss was noticed.
    seconds: float


GenerationEvent = HopWasLost | WaitsForLayers | HopsReplayed | StageAudited
