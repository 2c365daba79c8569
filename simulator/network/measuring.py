"""What made-up nodes measure of a made-up network, said as real ones say it: pings, transfers, losses, and the Readies that follow.

Every figure has the error that a measurement has: a ping comes with jitter, a loss is counted among the packets that were sent, a link
is seen only as busy as the exchange made it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np

from protocol.digest import digest
from protocol.identity import PeerId
from protocol.messages import Ready
from protocol.network.coordinate import ORIGIN, Coordinate, moved
from protocol.network.samples import Window
from protocol.network.sight import MAX_SIGHTS, MOST_BITS, Sight, choose, short_name
from simulator.network.links import MATHIS, MSS_BYTES, VECTOR_BYTES, Links
from simulator.network.movement import Moved

PINGS = 8  # of each neighbour in a round: one every 7.5 s in a round of a minute
NEIGHBOURS = 24  # that a node is connected to all the time
ROOM = 0.5  # of what a path is thought to carry: losses among a few hundred packets tell it no better
PARTNERS = 2  # of its rank that a node measures in a round
LEAST_PACKETS = 50  # before a loss is said of a path
REMEMBERED = 4  # rounds in which a link was seen: the busiest counts, since each sees no more than the exchange asked of it


class _Path(msgspec.Struct):
    """What one node remembers of another."""

    rtt: Window = Window()
    packets: int = 0
    lost: int = 0
    ups: tuple[tuple[bool, int], ...] = ()  # whether the path left room, and what was seen
    downs: tuple[tuple[bool, int], ...] = ()

    @property
    def flow_bits(self) -> int:
        """What the path carries by its losses; 0 before enough was sent to tell."""
        rtt_us = self.rtt.settled
        if self.packets < LEAST_PACKETS or not rtt_us:
            return 0
        loss = max(self.lost, 1) / self.packets
        return min(MOST_BITS, round(MATHIS * MSS_BYTES * 8 / (rtt_us / 1e6 * loss**0.5)))

    def left_room(self, bits: float, seconds: float) -> bool:
        """Whether a transfer was so slow that the path cannot have been its bound."""
        return bits / seconds < ROOM * self.flow_bits


def round_trip_us(links: Links, i: int, j: int, rng: random.Random) -> int:
    """One ping."""
    return max(1, round(1e6 * (links.rtt_s[i, j] + links.jitter_s * abs(rng.gauss(0, 0.5)))))


class Settling:
    """Coordinates as the pings of neighbours settle them, round after round. They are the same whatever the plans are."""

    def __init__(self, nodes: int, seed: int) -> None:
        self._rng = random.Random(f"pings {nodes} {seed}")
        self._salts = [digest(i.to_bytes(4, "big"))[:3] for i in range(nodes)]
        self._windows: list[dict[int, Window]] = [{j: Window() for j in self._some(i, nodes)} for i in range(nodes)]
        self.coordinates = [ORIGIN] * nodes

    def _some(self, i: int, nodes: int) -> list[int]:
        return [j for j in self._rng.sample(range(nodes), min(NEIGHBOURS + 1, nodes)) if j != i][:NEIGHBOURS]

    def round(self, links: Links) -> list[Coordinate]:
        """Where everybody is after a round's pings."""
        for _ in range(PINGS):
            for i in self._rng.sample(range(links.nodes), links.nodes):
                for j, window in self._windows[i].items():
                    self._windows[i][j] = window.add(round_trip_us(links, i, j, self._rng))
                    settled = self._windows[i][j].settled
                    if settled is not None:
                        self.coordinates[i] = moved(self.coordinates[i], self.coordinates[j], settled, self._salts[i])
        return list(self.coordinates)


class Nodes:
    """All nodes and what each has measured. Node i is `peers[i]`; peers are in ascending order, as the members of a plan are."""

    def __init__(self, nodes: int, seed: int) -> None:
        self._rng = random.Random(f"measuring {nodes} {seed}")
        self.peers: tuple[PeerId, ...] = tuple(f"node-{i:05d}" for i in range(nodes))
        self._paths: list[dict[int, _Path]] = [{} for _ in range(nodes)]

    def took_part(self, links: Links, moved_: Moved, rows: Sequence[Sequence[int]], shares: Sequence[float]) -> None:
        """What members learned in an exchange of those whose slices they got."""
        owned = np.zeros(links.nodes)
        others = np.zeros(links.nodes)
        for row in rows:
            owned[list(row[: len(shares)])] = shares
            others[list(row)] = len(row) - 1
        bits = 8 * VECTOR_BYTES
        for i in range(links.nodes):
            senders = np.flatnonzero(np.isfinite(moved_.slice_s[:, i]))
            takers = np.flatnonzero(np.isfinite(moved_.slice_s[i]))
            for j in self._drawn(senders):
                path = self._met(links, i, j)
                seconds = moved_.slice_s[j, i] - links.rtt_s[j, i] / 2
                self._losses(path, links.loss[j, i], owned[i] * VECTOR_BYTES)
                room = path.left_room(bits * owned[i], seconds)
                path.ups = (*path.ups, (room, self._seen(bits * (1 - owned[j]) / seconds)))[-REMEMBERED:]
            for j in self._drawn(takers):
                path = self._met(links, i, j)
                seconds = moved_.slice_s[i, j] - links.rtt_s[i, j] / 2
                self._losses(path, links.loss[i, j], owned[j] * VECTOR_BYTES)
                room = path.left_room(bits * owned[j], seconds)
                path.downs = (*path.downs, (room, self._seen(bits * owned[j] * others[j] / seconds)))[-REMEMBERED:]
        for k in range(len(shares) if len(rows) > 1 else 0):
            owners = [row[k] for row in rows]
            for i in owners:
                for j in self._drawn([other for other in owners if other != i])[:PARTNERS]:
                    self._losses(self._met(links, i, j), links.loss[i, j], shares[k] / len(rows) * VECTOR_BYTES)

    def _drawn(self, some: Sequence[int]) -> list[int]:
        return self._rng.sample([int(j) for j in some], min(MAX_SIGHTS, len(some)))

    def _met(self, links: Links, i: int, j: int) -> _Path:
        path = self._paths[i].setdefault(j, _Path())
        for _ in range(PINGS):
            path.rtt = path.rtt.add(round_trip_us(links, i, j, self._rng))
        return path

    def _seen(self, bits: float) -> int:
        return min(MOST_BITS, round(bits * self._rng.uniform(0.97, 1.0)))

    def _losses(self, path: _Path, loss: float, size_bytes: float) -> None:
        packets = int(size_bytes / MSS_BYTES) + 1
        path.packets += packets
        path.lost += int(np.random.default_rng(self._rng.getrandbits(32)).binomial(packets, loss))

    def readies(self, parent: bytes, coordinates: Sequence[Coordinate]) -> list[tuple[PeerId, Ready]]:
        """What everybody says of itself and of others in a round."""
        return [(peer, self._ready(i, parent, at)) for i, (peer, at) in enumerate(zip(self.peers, coordinates, strict=True))]

    def _ready(self, i: int, parent: bytes, at: Coordinate) -> Ready:
        return Ready(
            parent=parent,
            view=0,
            number=1,
            seq=1,
            samples=1,
            contribution=parent,
            loss=None,
            fingerprint=parent,
            up_bits=0,
            down_bits=0,
            coordinate=at,
            sights=choose(self.peers[i], [(self.peers[j], self._sight(j, path)) for j, path in self._paths[i].items()], parent),
        )

    def _sight(self, j: int, path: _Path) -> Sight:
        nothing = (False, 0)
        up, down = max(path.ups, default=nothing), max(path.downs, default=nothing)  # those with room before those without
        return Sight(
            who=short_name(self.peers[j]),
            rtt_us=path.rtt.settled or 0,
            up_bits=up[1],
            down_bits=down[1],
            flow_bits=path.flow_bits,
            bounded=not up[0] or (down != nothing and not down[0]),
        )
