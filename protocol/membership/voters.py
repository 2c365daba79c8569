"""Who gains a vote by a certificate, and who loses one.

A trusted member gains a vote when two certificates have listed it, unless more than half of the
voters are against it. One certificate gives at most one vote, most weight first, and a run has at
most `MAX_VOTERS`: a plan of 64 members must find a quorum.

A vote is lost by silence, by the word of more than half of the voters, or by the owner's
revocation. It is never lost by slowness: an offer in a plan keeps it, also where the leader's
inclusion leaves the work out.

A voter that leaves in order keeps its vote, but the vote does not count until its next offer.
Otherwise the second of two friends would stop the first for an hour by stopping its own node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.membership.facts import RecordFacts
from protocol.membership.record import MembershipRecord
from protocol.membership.role import is_accepted, is_trusted
from protocol.messages.membership import MAX_VOTERS
from protocol.run.manifest import Manifest

T = TypeVar("T")

LISTINGS_NEEDED = 2
"""The certificates that list a trusted member before it votes.

An invitation is the owner's word, so there is no long probation: a run whose founder dies in its
first minutes would stand still.
"""

LEAST_ABSENCES = 8
ABSENCES_PER_VOTER = 2
"""A vote is lost after max(8, 2 x voters) plans without an offer.

With 8 alone, a quarter of the voters took over by leaving the others out of their plans.
"""

WORKED_LISTINGS = 16
"""The certificates, of the last 32, that list a stranger before it may vote by its work."""

WORKED_SHARE = 4
"""Such a stranger's weight is at least that of the median voter, over this."""

STRANGERS_SHARE = 3
"""Voters by work are at most a third of all."""


def is_opposed(record: MembershipRecord, peer: PeerId) -> bool:
    """Whether more than half of the voters are against a peer."""
    return 2 * record.speaks_against(peer) > len(record.voters)


def most_absences(record: MembershipRecord) -> int:
    """The plans without an offer after which a voter loses its vote."""
    return max(LEAST_ABSENCES, ABSENCES_PER_VOTER * len(record.voters))


def without_lost(record: MembershipRecord) -> MembershipRecord:
    """Take votes away. A run keeps at least one voter, whatever its voters say of each other."""
    most = most_absences(record)
    lost = {
        voter
        for voter in record.voters
        if voter in record.revoked
        or record.absences.get(voter, 0) >= most
        or is_opposed(record, voter)
    }
    if not lost or lost == {*record.voters}:
        return record
    return replace(
        record,
        voters=tuple(voter for voter in record.voters if voter not in lost),
        statements=without(record.statements, lost),
        absences=without(record.absences, lost),
        listings=without(record.listings, lost),
        left=tuple(voter for voter in record.left if voter not in lost),
    )


def with_gained(
    record: MembershipRecord, facts: RecordFacts, manifest: Manifest
) -> MembershipRecord:
    """Give the vote to at most one member of the plan: the one with the most weight."""
    if len(record.voters) >= MAX_VOTERS:
        return record
    votes = {
        peer: invitation for invitation in record.invitations.values() for peer in invitation.peers
    }

    def may_vote(peer: PeerId) -> bool:
        if peer in record.voters or peer in record.revoked or is_opposed(record, peer):
            return False
        if not is_trusted(record, manifest, peer):
            return manifest.trust.votes == "worked" and _has_worked(record, manifest, peer)
        if record.listings.get(peer, 0) < LISTINGS_NEEDED:
            return False
        invitation = votes.get(peer)
        if invitation is None or peer in manifest.founders:
            return True
        return sum(other in record.voters for other in invitation.peers) < invitation.voters

    candidates = [peer for peer in facts.offers if may_vote(peer)]
    if not candidates:
        return record
    gained = min(candidates, key=lambda peer: (-record.weight_of(peer), peer))
    return replace(
        record,
        voters=tuple(sorted((*record.voters, gained))),
        listings=without(record.listings, {gained}),
    )


def _has_worked(record: MembershipRecord, manifest: Manifest, peer: PeerId) -> bool:
    """Whether a stranger may vote by its work."""
    if not is_accepted(record, manifest, peer):
        return False
    strangers = sum(not is_trusted(record, manifest, voter) for voter in record.voters)
    if STRANGERS_SHARE * (strangers + 1) > len(record.voters) + 1:
        return False
    if sum(peer in each.weights for each in record.recent) < WORKED_LISTINGS:
        return False
    weights = sorted(record.weight_of(voter) for voter in record.voters)
    return WORKED_SHARE * record.weight_of(peer) >= weights[(len(weights) - 1) // 2]


def without(table: Mapping[PeerId, T], peers: Collection[PeerId]) -> dict[PeerId, T]:
    """Return the table without the entries of these peers."""
    return {peer: value for peer, value in table.items() if peer not in peers}
