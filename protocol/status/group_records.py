"""The records of groups in a status: who averages with whom, and how far apart members are.

As in `records.py`, the field names are a contract, and the imports must load quickly.
"""

from __future__ import annotations

import msgspec

from protocol.status.peer_records import PeerId

KEPT_MOVES = 60
"""Rounds in which members came or went: more marks would hide the lines of a chart."""


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the last plan.

    Groups are counted from 1. The place is a network coordinate: two members are as far apart in
    `x_ms`, `y_ms` and `z_ms` as a round trip takes between their networks, in milliseconds, and
    each has `height_ms` of its own access on top. `is_measured` is False where nobody knows it.
    """

    peer: PeerId
    group: int
    is_measured: bool = False
    x_ms: float = 0.0
    y_ms: float = 0.0
    z_ms: float = 0.0
    height_ms: float = 0.0


class GroupMap(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of the plan of round `number`, and why the plan formed them."""

    number: int
    reason: str
    predicted_s: float | None
    members: tuple[GroupMember, ...]


class MemberMove(msgspec.Struct, frozen=True, kw_only=True):
    """Members that the certificate `number` has and the one before had not, and the other way."""

    number: int
    at: float
    joined: tuple[PeerId, ...]
    left: tuple[PeerId, ...]
