"""What a path through the made-up network is like, and when something sent over it arrives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import msgspec

from protocol.identity import PeerId

# Linux's lower bound of a TCP retransmission timeout.
LEAST_RETRANSMISSION_S = 0.2


class LinkModel(msgspec.Struct, frozen=True, kw_only=True):
    """One direction between two nodes.

    `bandwidth_bps` is shared by everything that goes this way.
    """

    latency_s: float = 0.02
    # Up to so much is added to each piece, uniformly.
    jitter_s: float = 0.0
    bandwidth_bps: float = math.inf
    # Of a gossip message; a stream's piece is sent again, which costs time.
    loss: float = 0.0

    def __post_init__(self) -> None:
        if (
            self.latency_s < 0
            or self.jitter_s < 0
            or self.bandwidth_bps <= 0
            or not 0 <= self.loss < 1
        ):
            raise ValueError(f"no such link: {self}")


LinkMap = Callable[[PeerId, PeerId], LinkModel]
"""The link from the first peer to the second. Asked for every piece sent, so that it may change with time; must be cheap."""


def same_link(model: LinkModel) -> LinkMap:
    """Every path is like this."""
    return lambda _source, _target: model


class Pipe:
    """Something of limited bandwidth that serves in order of arrival: one direction of a path, a
    node's uplink, its downlink.
    """

    __slots__ = ("bandwidth_bps", "free_at")

    def __init__(self, bandwidth_bps: float = math.inf) -> None:
        self.bandwidth_bps = bandwidth_bps
        self.free_at = 0.0

    def pass_through(self, size: int, earliest: float) -> float:
        """When the last bit of `size` bytes that come at `earliest` is through; the pipe is taken
        until then.
        """
        if self.bandwidth_bps == math.inf:
            return earliest
        self.free_at = max(self.free_at, earliest) + size * 8 / self.bandwidth_bps
        return self.free_at


def flight_time(model: LinkModel, rng: random.Random, *, reliable: bool) -> float:
    """Seconds from leaving to arriving.

    A `reliable` piece that is lost is sent again after a timeout, as often as it takes.
    """
    seconds = model.latency_s
    if model.jitter_s:
        seconds += model.jitter_s * rng.random()
    if reliable and model.loss:
        while rng.random() < model.loss:
            seconds += max(LEAST_RETRANSMISSION_S, 4 * model.latency_s)
    return seconds
