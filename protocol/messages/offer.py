"""Offers: what a node contributes to one round and view.

In runs of rules 2 and 3, an offer's kind says what it carries: an account binding, a task name,
both or neither. Optional fields would add bytes to the offers of every run and change what those
sign. Runs of rules 4 have one kind, with optional fields (`TrustReady`). `task_of` and `binding_of`
read every kind.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.messages.base import Hash, Message, Natural, Signature
from protocol.messages.membership import MAX_INVITATION_BYTES, MAX_STATEMENTS, Statement
from protocol.network.coordinate import Coordinate
from protocol.network.peer_observation import MAX_OBSERVATIONS, NAME_BYTES, PeerObservation
from protocol.run.task_digest import Name

MAX_DRAWN = 1 << 32
"""The most samples that an offer may claim to have drawn.

The claim of one member moves the lanes of all. At this bound, 63 bits of positions last for
millions of rounds.
"""
MAX_ROUNDS = 1 << 20
"""The most rounds of training that an offer may hold: two months of rounds of 5 s."""
MAX_STRETCHES = 4
"""The stretches of data that an offer names: older work is dropped before it is offered again."""
MAX_UNREACHABLE = 16
"""The peers that an offer names as unreachable, of 10 bytes each: a quarter of a large group."""

MAX_RELAYED = 32
"""The relayed paths that an offer names, of 25 bytes each: a group in which all others have none
but relayed paths."""

ShortName = Annotated[bytes, Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]


class Binding(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The account that earns the offer's work (`protocol/chain/account_binding.py`).

    A binding takes 121 bytes on the wire.
    """

    # The compressed public key of the wallet.
    public_key: Annotated[bytes, Meta(min_length=33, max_length=33)]
    payout: Annotated[bytes, Meta(min_length=20, max_length=20)]
    signature: Signature  # r ‖ s


class Trajectory(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """How far an offer's sender trained from the parent's anchor."""

    # Samples that it used of its lane (`Tip.lane`).
    drawn: Annotated[int, Meta(ge=0, le=MAX_DRAWN)] = 0
    # Rounds of training behind the offer (`protocol/contribution/round_share.py`).
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)] = 1


class DataStretch(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """Samples that an offer was trained on: a part of its sender's lane after one tip."""

    # The tip whose lane of the sender holds the samples.
    tip: Hash
    # The place of the first sample in the whole lane, which begins with the reserve. Samples from a
    # place in the reserve on are of the reserve alone, which begins again there.
    first: Natural
    count: Annotated[int, Meta(ge=1, le=MAX_DRAWN)]


class RelayedPath(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A path that a third node passes on, as the end that asked for the relay knows it."""

    to: ShortName
    relay: ShortName
    # The most that the relay's owner lets it pass on, bits a second; 0: no cap.
    cap_bps: Natural = 0


class FirstReady(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The fields of offers since the first version. Nodes send `Ready` and its kinds."""

    parent: Hash
    view: Natural
    # The number of the certificate that this round would make.
    number: Natural
    seq: Natural
    samples: Natural
    contribution: Hash
    loss: float | None
    # The digest of the bulk endpoint's certificate.
    fingerprint: Hash
    # Measured bits a second; 0 when not measured yet.
    uplink_bps: Natural
    downlink_bps: Natural
    # None before the first measurement.
    coordinate: Coordinate | None = None
    # The sender's measurements of a few other peers.
    observations: Annotated[tuple[PeerObservation, ...], Meta(max_length=MAX_OBSERVATIONS)] = ()


class Ready(
    FirstReady, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The offer of one node to one round and view.

    `seq` and `samples` are 0 when the node has nothing to offer but will reduce and vote.
    """

    trajectory: Trajectory = Trajectory()


class FirstBoundReady(
    FirstReady,
    frozen=True,
    kw_only=True,
    array_like=True,
    # The tag is part of the signed bytes of old certificates.
    tag="BoundReady",
    forbid_unknown_fields=True,
):
    """A bound offer from before offers had a trajectory.

    Old certificates hold such offers; nodes never send them.
    """

    binding: Binding


class BoundReady(
    Ready, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer with the account that earns its work.

    An offer without a binding counts but earns nothing.
    """

    binding: Binding


class TaskReady(
    Ready, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer with the name of the task it was trained for."""

    task: Name


class BoundTaskReady(
    BoundReady, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer with the account that earns its work and the name of its task."""

    task: Name


class TrustReady(
    Ready, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer of rules 4: what the kinds of `Ready` carry, and what its sender says of others."""

    # The account that earns the offer's work; None where it earns nothing.
    binding: Binding | None = None
    # The name of the task that the offer was trained for.
    task: Name | None = None
    # Only a voter's statements count.
    statements: Annotated[tuple[Statement, ...], Meta(max_length=MAX_STATEMENTS)] = ()
    # The proof that the owner invited the sender, in offers until a certificate admits it; else
    # empty (`protocol/membership/invitation.py`).
    invitation: Annotated[bytes, Meta(max_length=MAX_INVITATION_BYTES)] = b""
    # The samples behind the offer, for voters that audit the work.
    data: Annotated[tuple[DataStretch, ...], Meta(max_length=MAX_STRETCHES)] = ()
    # The short names of peers to which every path failed (`protocol/planning/paths.py`).
    unreachable: Annotated[tuple[ShortName, ...], Meta(max_length=MAX_UNREACHABLE)] = ()
    # The sender's paths through relays (`protocol/planning/relay_load.py`).
    relayed: Annotated[tuple[RelayedPath, ...], Meta(max_length=MAX_RELAYED)] = ()


def task_of(offer: Ready) -> bytes:
    """The name of the task that an offer was trained for; empty where the offer does not say."""
    if isinstance(offer, TaskReady | BoundTaskReady | TrustReady):
        return offer.task or b""
    return b""


def binding_of(offer: Ready) -> Binding | None:
    """The account that earns an offer's work; None where the offer names none."""
    return offer.binding if isinstance(offer, BoundReady | TrustReady) else None
