"""The paths between fake nodes: their links, the pipes they share, and where they are cut.

`Paths` knows peers only by their ids. It does not know nodes or connections.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import trio

from protocol.identity import PeerId
from simulator.fakes.clock import Schedule
from simulator.fakes.link import LinkMap, LinkModel, Pipe, flight_time

# A node gives up a silent connection this long after the last answer to a ping.
PING_TIMEOUT_S = 10.0
# Pings do not start at the same moment, so the timeout comes up to this much later. Users of the
# port count on 15 s.
PING_INTERVAL_S = 3.0
# A router keeps about this much and drops the rest (https://www.bufferbloat.net).
QUEUE_S = 1.0


class Paths:
    """What every pair of nodes has between them."""

    def __init__(self, rng: random.Random, schedule: Schedule, link: LinkMap) -> None:
        self.rng = rng
        self.schedule = schedule
        self._link = link
        self._groups: dict[PeerId, int] = {}
        self._severed: set[tuple[PeerId, PeerId]] = set()
        self._other_links: dict[tuple[PeerId, PeerId], LinkModel] = {}
        self._pipes: dict[tuple[PeerId, PeerId], Pipe] = {}
        self._uplinks: dict[PeerId, Pipe] = {}
        self._downlinks: dict[PeerId, Pipe] = {}
        self._own_downlinks_bps: dict[PeerId, float] = {}
        # Downlinks that are slower than the node's own at present.
        self._limits_bps: dict[PeerId, float] = {}

    def add_node(self, peer: PeerId, *, uplink_bps: float, downlink_bps: float) -> None:
        """Give a node its access link; again for each of its lives."""
        self._uplinks[peer] = Pipe(uplink_bps)
        self._downlinks[peer] = Pipe(min(downlink_bps, self._limits_bps.get(peer, math.inf)))
        self._own_downlinks_bps[peer] = downlink_bps

    def limit_downlink(self, peer: PeerId, rate_bps: float | None) -> None:
        """Limit what reaches a node, in all its lives. None ends the limit."""
        if rate_bps is None:
            self._limits_bps.pop(peer, None)
        else:
            self._limits_bps[peer] = rate_bps
        if peer in self._downlinks:
            own_bps = self._own_downlinks_bps[peer]
            self._downlinks[peer].bandwidth_bps = min(own_bps, rate_bps or math.inf)

    def is_congested(self, peer: PeerId) -> bool:
        """Whether gossip to a node is lost: more waits at its slow downlink than a router keeps."""
        return (
            peer in self._limits_bps
            and self._downlinks[peer].free_at > trio.current_time() + QUEUE_S
        )

    # ---------------------------------------------------------------- cuts

    def partition(self, groups: Iterable[Iterable[PeerId]]) -> None:
        """Cut every path between two groups. Peers in no group form one more group."""
        self._groups = {
            peer: number for number, group in enumerate(groups, start=1) for peer in group
        }

    def heal(self) -> None:
        self._groups = {}

    def sever(self, first: PeerId, second: PeerId) -> None:
        self._severed |= {(first, second), (second, first)}

    def mend(self, first: PeerId, second: PeerId) -> None:
        self._severed -= {(first, second), (second, first)}

    def is_cut(self, here: PeerId, there: PeerId) -> bool:
        """Whether the path between two nodes is severed or partitioned at present."""
        if self._severed and (here, there) in self._severed:
            return True
        return not self.in_one_group(here, there)

    def in_one_group(self, here: PeerId, there: PeerId) -> bool:
        groups = self._groups
        return not groups or groups.get(here, 0) == groups.get(there, 0)

    @property
    def has_cuts(self) -> bool:
        """Whether any path is severed or partitioned."""
        return bool(self._severed or self._groups)

    # ---------------------------------------------------------------- links

    def set_link(self, first: PeerId, second: PeerId, model: LinkModel | None) -> None:
        """Replace the model of one path, both ways. None restores the world's own model."""
        for pair in ((first, second), (second, first)):
            if model is None:
                self._other_links.pop(pair, None)
            else:
                self._other_links[pair] = model

    def link_between(self, source: PeerId, target: PeerId) -> LinkModel:
        if self._other_links:
            other = self._other_links.get((source, target))
            if other is not None:
                return other
        return self._link(source, target)

    def latency_s(self, source: PeerId, target: PeerId) -> float:
        return self.link_between(source, target).latency_s

    def round_trip_s(self, here: PeerId, there: PeerId) -> float:
        """Seconds there and back, with jitter at its mean."""
        forth, back = self.link_between(here, there), self.link_between(there, here)
        return forth.latency_s + forth.jitter_s / 2 + (back.latency_s + back.jitter_s / 2)

    def transit(self, source: PeerId, target: PeerId, size_bytes: int) -> tuple[float, float]:
        """Send bytes now: returns when the last bit has left and when it arrives.

        The bytes take their place in every pipe on the path.
        """
        model = self.link_between(source, target)
        leaves = self._uplinks[source].pass_through(size_bytes, trio.current_time())
        if model.bandwidth_bps != math.inf:
            pipe = self._pipes.get((source, target))
            if pipe is None:
                pipe = self._pipes[source, target] = Pipe()
            pipe.bandwidth_bps = model.bandwidth_bps
            leaves = pipe.pass_through(size_bytes, leaves)
        flight_s = flight_time(model, self.rng, reliable=True)
        arrives = self._downlinks[target].pass_through(size_bytes, leaves + flight_s)
        if target in self._limits_bps:
            # Flow control: a sender's window is small beside what a slow downlink leaves waiting.
            leaves = max(leaves, arrives - flight_s)
        return leaves, arrives

    def ping_deadline(self) -> float:
        """When a connection that falls silent now is given up."""
        return trio.current_time() + PING_TIMEOUT_S + PING_INTERVAL_S * self.rng.random()
