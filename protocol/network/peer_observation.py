"""What a node says in Ready of others: what it measured of them, as seen from its side.

A node's word about itself can pay; its word about others pays nobody but them. Plans therefore go
by sights (`views.py`). A Ready has room for a few, drawn so that everybody is seen by several: a
plan carries all of its members' Readies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.network.coordinate import Microseconds

MAX_OBSERVATIONS = 8  # of about 40 bytes: a third of a Ready
# Of the digest of a peer id: nobody finds another key for one by trying, and the whole id takes six
# times as much.
NAME_BYTES = 8
MOST_BITS = 1 << 40  # a second: a terabit

Bits = Annotated[int, Meta(ge=0, le=MOST_BITS)]
# 1.5 GB: what a longer connection lost is told in proportion.
MOST_SEGMENTS = 1 << 20
Count = Annotated[int, Meta(ge=0, le=MOST_SEGMENTS)]
Few = Annotated[int, Meta(ge=0, le=16)]


class PeerObservation(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What one node measured of another. 0 bits is not measured.

    `uplink_bps`: all that the other had to send in a transfer, over the time until the part for me was
    here: its whole uplink, told by who received. `downlink_bps`: all that it had to receive, over the
    time until mine was taken: its downlink, told by who sent. `flow_bits`: the most that the path
    between us was seen to carry. `again` of `segments` had to be sent again: counts and no rate,
    since a hundred packets tell little of a loss of a thousandth, and those of everybody together
    tell it well.
    """

    who: Annotated[bytes, Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]
    rtt_us: Microseconds
    uplink_bps: Bits = 0
    downlink_bps: Bits = 0
    flow_bits: Bits = 0
    segments: Count = 0
    retransmits: Count = 0
    # The last ones in which we were in one plan.
    rounds: Few = 0
    # Of them: it was lost, or what it owed did not come in time.
    failed: Few = 0
    # The path carried no more, or my own link did not: `uplink_bps` and `downlink_bps` are the least that
    # its links carry.
    bounded: bool = False


def short_name(peer: PeerId) -> bytes:
    """What a sight calls a peer."""
    return digest(b"sight", peer.encode())[:NAME_BYTES]


def choose(
    mine: PeerId, sights: Iterable[tuple[PeerId, PeerObservation]], parent: Digest
) -> tuple[PeerObservation, ...]:
    """The sights to send in a round: a draw that changes with every round and differs from node to
    node.
    """
    drawn = sorted(sights, key=lambda entry: digest(parent, mine.encode(), entry[0].encode()))
    return tuple(sight for _, sight in drawn[:MAX_OBSERVATIONS])
