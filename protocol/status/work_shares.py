"""Each peer's part in the last rounds, from their certificates."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.status.peer_records import PeerId
from protocol.status.run_records import RoundSummary

CERTIFIED = frozenset({"counted", "observed", "late", "lost", "idle"})
"""The outcomes of rounds with a certificate."""


class WorkShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer did in the last certified rounds.

    `counted` of the rounds count its work, which is `samples`; in `missed` rounds it was a member
    whose work did not count. `share` is its part of all samples, 0 to 1.
    """

    peer: PeerId
    counted: int
    missed: int
    samples: int
    share: float


def work_shares(rounds: Iterable[RoundSummary]) -> dict[PeerId, WorkShare]:
    """Return the part of each member of `rounds`, the one with the most samples first."""
    counted: dict[PeerId, int] = {}
    missed: dict[PeerId, int] = {}
    samples: dict[PeerId, int] = {}
    for one in rounds:
        if one.outcome not in CERTIFIED:
            continue
        for peer, size in zip(one.contributors, one.contributed, strict=False):
            counted[peer] = counted.get(peer, 0) + 1
            samples[peer] = samples.get(peer, 0) + size
        for peer in frozenset(one.members) - frozenset(one.contributors):
            missed[peer] = missed.get(peer, 0) + 1
    total = sum(samples.values())
    peers = sorted(counted.keys() | missed.keys(), key=lambda one: (-samples.get(one, 0), one))
    return {
        peer: WorkShare(
            peer=peer,
            counted=counted.get(peer, 0),
            missed=missed.get(peer, 0),
            samples=samples.get(peer, 0),
            share=samples.get(peer, 0) / total if total else 0.0,
        )
        for peer in peers
    }
