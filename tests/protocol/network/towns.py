"""Members in two towns and their Readies, which are honest unless a test changes them."""

from __future__ import annotations

from protocol.identity import PeerId
from protocol.messages.offer import Ready
from protocol.network.coordinate import Coordinate, estimate_us
from protocol.network.peer_observation import MAX_OBSERVATIONS, PeerObservation, short_name

ZERO = bytes(32)


class Town:
    """`count` members in two towns, `apart_us` from each other.

    Their links have 20 to 30 Mbit/s up and five times that down.
    """

    def __init__(self, count: int, apart_us: int = 150_000) -> None:
        self.peers: tuple[PeerId, ...] = tuple(f"peer-{i:04d}" for i in range(count))
        self.up = [20_000_000 + 10_000_000 * i // count for i in range(count)]
        self.down = [5 * up for up in self.up]
        self.places = [
            Coordinate(
                x_us=apart_us * (2 * i // count) + 300 * (i % 7),
                y_us=300 * (i % 5),
                height_us=5_000,
                error_ppm=50_000,
            )
            for i in range(count)
        ]

    def rtt_us(self, i: int, j: int) -> int:
        return estimate_us(self.places[i], self.places[j])


def offers(town: Town) -> list[tuple[PeerId, Ready]]:
    """Return the members' Readies; each observes a few others, some of them in the other town."""
    count = len(town.peers)
    reports = []
    for i, peer in enumerate(town.peers):
        seen = sorted({(i + step * step) % count for step in range(1, MAX_OBSERVATIONS + 1)} - {i})
        observations = tuple(
            PeerObservation(
                who=short_name(town.peers[j]),
                rtt_us=town.rtt_us(i, j),
                # No two members measure the same rate.
                uplink_bps=town.up[j] - 1000 * i,
                downlink_bps=town.down[j] - 1000 * i,
            )
            for j in seen
        )
        reports.append((peer, ready(town.places[i], observations)))
    return reports


def ready(
    at: Coordinate | None,
    observations: tuple[PeerObservation, ...],
    uplink_bps: int = 0,
    downlink_bps: int = 0,
) -> Ready:
    return Ready(
        parent=ZERO,
        view=0,
        number=1,
        seq=1,
        samples=1,
        contribution=ZERO,
        loss=None,
        fingerprint=ZERO,
        uplink_bps=uplink_bps,
        downlink_bps=downlink_bps,
        coordinate=at,
        observations=observations,
    )
