"""What peers sign about who votes in a run of rules 4, and what its owner signs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.messages.base import (
    UNREADABLE,
    Hash,
    Id,
    Message,
    Natural,
    Signature,
    Signed,
)

MAX_STATEMENTS = 8
"""The statements that one offer carries: a voter audits fewer peers in a round than this."""

MAX_VOTERS = 32
"""The most voters of a run: a plan of 64 members holds all of them, and as many others."""

MAX_NOTICES = 8
"""The revocations that one plan carries; more wait for the next plan."""

MAX_INVITATION_BYTES = 1024
"""An invitation is two signatures and a few numbers; the rest is a reserve."""

MAX_SERIAL = (1 << 63) - 1

OrderAction = Literal["start", "pause", "stop"]
"""What an owner's order asks of every node."""

Votes = Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=2 * MAX_VOTERS)]
"""Votes for one outcome, or for the two parents of a merge, by voter."""


class Statement(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A voter's word for or against a peer. A later one on the same peer replaces it."""

    subject: Id
    favours: bool


class Leave(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A voter stops in order: its vote does not count until its next offer.

    A plan lists the leave, which names the tip at which its sender stopped. `serial` grows, so an
    old leave never counts again.
    """

    tip: Hash
    serial: Natural


class Revocation(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The run's owner takes a peer's vote, its membership and its invitation away, for good."""

    subject: Id


class Recovery(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The run's owner says from which certificate the run goes on, and who votes then.

    Branches without the certificate count less than branches with it. Of several, the one with the
    highest serial counts.
    """

    serial: Annotated[int, Meta(ge=1, le=MAX_SERIAL)]
    tip: Hash
    number: Natural
    voters: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MAX_VOTERS)]


class TrainingOrder(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The run's owner starts, pauses or stops training on every node.

    Of several, the one with the highest serial counts. An order changes no certificate: it says
    what nodes do with their devices.
    """

    serial: Annotated[int, Meta(ge=1, le=MAX_SERIAL)]
    action: OrderAction


_revocations = msgspec.msgpack.Decoder(Revocation)


def revoked_in(signed: Signed) -> str:
    """The peer that a signed revocation names, unchecked; empty for another message."""
    try:
        return _revocations.decode(signed.payload).subject
    except UNREADABLE:
        return ""
