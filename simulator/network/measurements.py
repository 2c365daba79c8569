"""The measurements of simulated nodes, reported as real nodes do: pings, transfers, losses, offers.

Every figure has the error that a measurement has. A ping has jitter, loss is counted among the
packets that were sent, and a link is seen only as busy as the exchange made it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np

from daemon.swarm.link_estimates import LinkEstimates
from protocol.digest import digest
from protocol.identity import PeerId
from protocol.messages.offer import Ready
from protocol.network.coordinate import ORIGIN, Coordinate, moved
from protocol.network.peer_observation import MAX_OBSERVATIONS
from protocol.network.samples import WINDOW, SampleWindow
from protocol.ports.network import Link
from simulator.network.links import MSS_BYTES, VECTOR_BYTES, Floats, Ints, NetworkLinks
from simulator.network.transfer import TransferResult

# Pings to each neighbour in a round: one every 7.5 s in a round of a minute.
PINGS = 8
# A node is always connected to this many others.
NEIGHBOURS = 24
# A node measures this many counterparts in a round.
PARTNERS = 2


def round_trip_us(links: NetworkLinks, i: int, j: int, rng: random.Random) -> int:
    """The result of one ping, in microseconds."""
    rtt_s = float(links.rtt_s[i, j]) + links.jitter_s * abs(rng.gauss(0, 0.5))
    return max(1, round(1e6 * rtt_s))


class CoordinateFit:
    """Network coordinates, fitted to the pings of neighbours round after round.

    They do not depend on the plans.
    """

    def __init__(self, nodes: int, seed: int) -> None:
        self._rng = random.Random(f"pings {nodes} {seed}")
        self._salts = [digest(i.to_bytes(4, "big"))[:3] for i in range(nodes)]
        self._windows: list[dict[int, SampleWindow]] = [
            {j: SampleWindow() for j in self._some(i, nodes)} for i in range(nodes)
        ]
        self.coordinates = [ORIGIN] * nodes

    def _some(self, i: int, nodes: int) -> list[int]:
        return [j for j in self._rng.sample(range(nodes), min(NEIGHBOURS + 1, nodes)) if j != i][
            :NEIGHBOURS
        ]

    def round(self, links: NetworkLinks) -> list[Coordinate]:
        """Where every node estimates itself to be after a round's pings."""
        for _ in range(PINGS):
            for i in self._rng.sample(range(links.nodes), links.nodes):
                for j, window in self._windows[i].items():
                    self._windows[i][j] = window.add(round_trip_us(links, i, j, self._rng))
                    settled = self._windows[i][j].settled
                    if settled is not None:
                        self.coordinates[i] = moved(
                            self.coordinates[i], self.coordinates[j], settled, self._salts[i]
                        )
        return list(self.coordinates)


class _PathLoss(msgspec.Struct):
    """The packets on one path, from the start."""

    packets: int = 0
    again: int = 0


class NodeMeasurements:
    """All nodes and what each has measured, kept as real nodes keep it.

    Node i is `peers[i]`. Peers are in ascending order, as a plan's members are.
    """

    def __init__(self, nodes: int, seed: int) -> None:
        self._rng = random.Random(f"measuring {nodes} {seed}")
        self.peers: tuple[PeerId, ...] = tuple(f"node-{i:05d}" for i in range(nodes))
        self._known = [LinkEstimates(peer) for peer in self.peers]
        self._paths: list[dict[int, _PathLoss]] = [{} for _ in range(nodes)]
        # The most bits per second that each node saw its own links carry.
        self._most_up, self._most_down = np.zeros(nodes), np.zeros(nodes)

    def took_part(
        self,
        links: NetworkLinks,
        moved_: TransferResult,
        groups: Sequence[Sequence[int]],
        shares: Sequence[float],
    ) -> None:
        """Record what members of an exchange measured of the peers whose slices they received."""
        owned, others, even = np.zeros(links.nodes), np.zeros(links.nodes), np.zeros(links.nodes)
        for group in groups:
            owned[list(group[: len(shares)])] = shares
            others[list(group)] = len(group) - 1
            even[list(group)] = np.minimum(owned[list(group)][:, None], np.asarray(shares)).sum(
                axis=1
            )
        took, sent = VECTOR_BYTES * owned * others, VECTOR_BYTES * (1 - owned)
        with np.errstate(invalid="ignore"):
            self._most_down = np.fmax(
                self._most_down, 8 * took / np.nanmax(_with_none(moved_.slice_s, 0), axis=0)
            )
            self._most_up = np.fmax(
                self._most_up, 8 * sent / np.nanmax(_with_none(moved_.slice_s, 1), axis=1)
            )
        for i in range(links.nodes):
            known = self._known[i]
            for j in self._drawn(np.flatnonzero(np.isfinite(moved_.slice_s[:, i]))):
                self._met(links, i, j, links.loss[j, i], owned[i])
                seconds = moved_.slice_s[j, i] / self._rng.uniform(0.97, 1.0)
                busy = 8 * took[i] / seconds / self._most_down[i]
                # Lanes share an uplink evenly: the longer ones have had as much.
                by_then = VECTOR_BYTES * (even[i] - min(owned[i], owned[j]))
                known.note_uplink(
                    self.peers[j], int(by_then), int(owned[i] * VECTOR_BYTES), seconds, busy
                )
            for j in self._drawn(np.flatnonzero(np.isfinite(moved_.slice_s[i]))):
                self._met(links, i, j, links.loss[i, j], owned[j])
                # Until the acknowledgement: half a round trip after the arrival.
                seconds = (moved_.slice_s[i, j] + links.rtt_s[i, j] / 2) / self._rng.uniform(
                    0.97, 1.0
                )
                busy = 8 * sent[i] / seconds / self._most_up[i]
                known.note_downlink(
                    self.peers[j], int(took[j]), int(owned[j] * VECTOR_BYTES), seconds, busy
                )
        for k in range(len(shares) if len(groups) > 1 else 0):
            owners = [group[k] for group in groups]
            for i in owners:
                for j in self._drawn([other for other in owners if other != i])[:PARTNERS]:
                    self._met(links, i, j, links.loss[i, j], shares[k] / len(groups))

    def _drawn(self, some: Sequence[int] | Ints) -> list[int]:
        return self._rng.sample([int(j) for j in some], min(MAX_OBSERVATIONS, len(some)))

    def _met(self, links: NetworkLinks, i: int, j: int, loss: float, share: float) -> None:
        """Record a round's pings, and what was lost of a share of the vector."""
        path = self._paths[i].setdefault(j, _PathLoss())
        packets = int(share * VECTOR_BYTES / MSS_BYTES) + 1
        path.packets += packets
        path.again += int(np.random.default_rng(self._rng.getrandbits(32)).binomial(packets, loss))
        for _ in range(WINDOW):
            rtt_s = round_trip_us(links, i, j, self._rng) / 1e6
            link = Link(
                peer=self.peers[j],
                path="direct",
                address="",
                rtt_s=rtt_s,
                since_s=0.0,
                segments=path.packets,
                retransmits=path.again,
            )
            self._known[i].note_links([link])

    def readies(
        self, parent: bytes, coordinates: Sequence[Coordinate]
    ) -> list[tuple[PeerId, Ready]]:
        """What every node reports of itself and of others in a round."""
        return [
            (peer, self._ready(i, parent, at))
            for i, (peer, at) in enumerate(zip(self.peers, coordinates, strict=True))
        ]

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
            uplink_bps=0,
            downlink_bps=0,
            coordinate=at,
            observations=self._known[i].observations(parent),
        )


def _with_none(slice_s: Floats, axis: int) -> Floats:
    """The matrix with infinite times for a node that received, or sent, nothing at all."""
    none = np.isnan(slice_s).all(axis=axis, keepdims=True)
    return np.where(none, np.inf, slice_s)
