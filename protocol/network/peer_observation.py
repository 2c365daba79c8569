"""What a node reports of others in its Ready: what it measured of them, from its side.

A node's report about itself can pay; its report about another node pays only the other. So plans go
by observations of others (`network_snapshot.py`). A Ready has room for a few observations, drawn so
that several nodes report every node: a plan carries the Readies of all its members.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.network.coordinate import Microseconds

MAX_OBSERVATIONS = 8
"""Observations of a Ready, of about 40 bytes each: a third of its size."""

NAME_BYTES = 8
"""Bytes of the digest of a peer id.

Finding another key with the same bytes takes too many tries, and the whole id would be six times as
long.
"""

MOST_BITS = 1 << 40
"""One terabit a second."""


Bits = Annotated[int, Meta(ge=0, le=MOST_BITS)]
MOST_SEGMENTS = 1 << 20
"""1.5 GB. The losses of a longer connection are reported in proportion."""

Count = Annotated[int, Meta(ge=0, le=MOST_SEGMENTS)]
Few = Annotated[int, Meta(ge=0, le=16)]


class PeerObservation(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What one node measured of another. 0 bits a second means "not measured".

    `uplink_bps`: all that the other node sent in one transfer, over the time from its start to the
    arrival of this node's part. So the receiver measures the whole uplink. `downlink_bps`: all that
    the other node received, over the time until it accepted this node's part. So the sender
    measures the whole downlink. `flow_bits`: the most that the path between the two was seen to
    carry. `retransmits`: how many of `segments` were sent again. These are counts and not a rate: a
    hundred packets say little about a loss of a thousandth, but the counts of all members together
    determine it well. `rounds`: the last rounds in which both were in one plan. In `failed` of them
    the other node was lost, or its part did not arrive in time. `bounded`: whether the path, or
    this node's own link, carried no more. `uplink_bps` and `downlink_bps` are then lower bounds.
    """

    who: Annotated[bytes, Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]
    rtt_us: Microseconds
    uplink_bps: Bits = 0
    downlink_bps: Bits = 0
    flow_bits: Bits = 0
    segments: Count = 0
    retransmits: Count = 0
    rounds: Few = 0
    failed: Few = 0
    bounded: bool = False


def short_name(peer: PeerId) -> bytes:
    """Return the name by which observations refer to a peer."""
    # The word is part of the digest in rules 2.
    return digest(b"sight", peer.encode())[:NAME_BYTES]


def choose(
    own: PeerId, observations: Iterable[tuple[PeerId, PeerObservation]], parent: Digest
) -> tuple[PeerObservation, ...]:
    """Return the observations to send in a round.

    They are drawn. The draw changes with every round and differs from node to node.
    """
    drawn = sorted(observations, key=lambda entry: digest(parent, own.encode(), entry[0].encode()))
    return tuple(observation for _, observation in drawn[:MAX_OBSERVATIONS])
