"""What a path through the fake network is like, and when what is sent over it arrives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import msgspec

from protocol.identity import PeerId

# Linux's lower bound for a TCP retransmission timeout.
LEAST_RETRANSMISSION_S = 0.2


class LinkModel(msgspec.Struct, frozen=True, kw_only=True):
    """One direction between two nodes.

    Everything that goes this way shares `bandwidth_bps`.
    """

    latency_s: float = 0.02
    # Each piece is up to this much later, uniformly distributed.
    jitter_s: float = 0.0
    bandwidth_bps: float = math.inf
    # The share of gossip messages that is lost. A lost piece of a stream is retransmitted, which
    # costs time.
    loss: float = 0.0

    def __post_init__(self) -> None:
        if (
            self.latency_s < 0
            or self.jitter_s < 0
            or self.bandwidth_bps <= 0
            or not 0 <= self.loss < 1
        ):
            raise ValueError(f"impossible link: {self}")


LinkMap = Callable[[PeerId, PeerId], LinkModel]
"""The link from the first peer to the second.

It is called for every piece that is sent, so it may change with time, and it must be cheap.
"""


def same_link(model: LinkModel) -> LinkMap:
    """Give every path this model."""
    return lambda _source, _target: model


class Pipe:
    """Limited bandwidth that serves in order of arrival: a path, an uplink or a downlink."""

    __slots__ = ("bandwidth_bps", "free_at")

    def __init__(self, bandwidth_bps: float = math.inf) -> None:
        self.bandwidth_bps = bandwidth_bps
        self.free_at = 0.0

    def pass_through(self, size: int, earliest: float) -> float:
        """Send bytes that come at `earliest`. Returns when the last bit has passed.

        The pipe is busy until then.
        """
        if self.bandwidth_bps == math.inf:
            return earliest
        self.free_at = max(self.free_at, earliest) + size * 8 / self.bandwidth_bps
        return self.free_at


def flight_time(model: LinkModel, rng: random.Random, *, reliable: bool) -> float:
    """Seconds from leaving to arriving.

    A lost `reliable` piece is retransmitted after a timeout until it arrives.
    """
    seconds = model.latency_s
    if model.jitter_s:
        seconds += model.jitter_s * rng.random()
    if reliable and model.loss:
        while rng.random() < model.loss:
            seconds += max(LEAST_RETRANSMISSION_S, 4 * model.latency_s)
    return seconds
