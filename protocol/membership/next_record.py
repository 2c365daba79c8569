"""How a certificate changes the membership record.

`voters.py` says who gains a vote by it, and who loses one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.membership.facts import RecordFacts
from protocol.membership.record import (
    ROUNDS_KEPT,
    TIPS_KEPT,
    WAITS_KEPT,
    Admitted,
    MembershipRecord,
    MergedBranch,
    RecordedRound,
    Statements,
)
from protocol.membership.role import admitted_by, is_trusted
from protocol.membership.voters import LISTINGS_NEEDED, with_gained, without, without_lost
from protocol.messages.membership import MAX_VOTERS, Statement
from protocol.run.manifest import Manifest

T = TypeVar("T")

STATEMENTS_KEPT = 256
"""The statements kept of one voter; older ones are forgotten. A voter makes eight in a round."""


def next_record(
    record: MembershipRecord, facts: RecordFacts, manifest: Manifest
) -> MembershipRecord:
    """The record after a certificate whose parent has `record`."""
    record = _noted(record, facts, manifest)
    record = without_lost(record)
    return with_gained(record, facts, manifest)


def merged_record(
    preferred: MembershipRecord,
    other: MembershipRecord,
    ancestor: MembershipRecord,
    facts: RecordFacts,
    manifest: Manifest,
    stood: tuple[PeerId, ...] = (),
) -> MembershipRecord:
    """The record after a merge.

    Voters are those of the preferred branch, then those of the ancestor that still vote in the
    other branch. Otherwise a private branch would appoint voters.

    Args:
        preferred: the record of the branch with more standing.
        other: the record of the other branch.
        ancestor: the record of the last common certificate.
        facts: what the merge's certificate says.
        manifest: the run's manifest.
        stood: the voters of the ancestor that stand on the other branch, if that has less standing.
    """
    back = tuple(
        peer
        for peer in ancestor.voters
        if peer in other.voters and peer not in preferred.voters and peer not in preferred.revoked
    )
    # The first of them where not all have room.
    back = back[: MAX_VOTERS - len(preferred.voters)]
    first = facts.number - ROUNDS_KEPT
    merged = tuple(each for each in preferred.merged if each.number > first)
    base = replace(
        preferred,
        voters=_sorted((*preferred.voters, *back)),
        invited=_sorted({*preferred.invited, *(set(back) & set(other.invited))}),
        statements={**preferred.statements, **_of(other.statements, back)},
        absences={**preferred.absences, **_of(other.absences, back)},
        listings=without(preferred.listings, back),
        left=_sorted({*preferred.left, *(set(back) & set(other.left))}),
        leaves={**other.leaves, **preferred.leaves},
        revoked=_sorted({*preferred.revoked, *other.revoked}),
        invitations=_united(preferred.invitations, other.invitations, back),
        merged=(*merged, MergedBranch(number=facts.number, stood=stood)) if stood else merged,
    )
    return next_record(base, facts, manifest)


def _noted(record: MembershipRecord, facts: RecordFacts, manifest: Manifest) -> MembershipRecord:
    """Add what a certificate says, with the parent's voters."""
    offered, first = facts.offers.keys(), facts.number - WAITS_KEPT
    invited = {
        peer: offer.invited for peer, offer in facts.offers.items() if offer.invited is not None
    }
    revoked = _sorted({*record.revoked, *facts.revoked})
    record = replace(record, revoked=revoked)
    invitations = dict(record.invitations)
    added: set[PeerId] = set()
    for invitation, peer in admitted_by(record, manifest, invited):
        known = invitations.get(invitation.name)
        peers = (*(known.peers if known else ()), peer)
        invitations[invitation.name] = Admitted(peers=peers, voters=invitation.voters)
        added.add(peer)
    statements = dict(record.statements)
    for voter in record.voters:
        if voter in offered and facts.offers[voter].statements:
            known_of = statements.get(voter, ())
            statements[voter] = _with_statements(known_of, facts.offers[voter].statements)
    listings = {
        peer: min(record.listings.get(peer, 0) + 1, LISTINGS_NEEDED)
        for peer in facts.weights
        if peer not in record.voters and (peer in added or is_trusted(record, manifest, peer))
    }
    planned = {peer: number for peer, number in record.planned.items() if number > first}
    made = RecordedRound(
        number=facts.number,
        round_s=facts.round_s,
        weights=facts.weights,
        step_norm=facts.step_norm,
    )
    return replace(
        record,
        invited=_sorted({*record.invited, *added} - set(revoked)),
        statements=statements,
        absences={
            voter: record.absences.get(voter, 0) + 1
            for voter in record.voters
            if voter not in offered
        },
        listings={**record.listings, **listings},
        invitations=invitations,
        left=_sorted(({*record.left, *facts.leaves} & {*record.voters}) - offered),
        leaves={**record.leaves, **facts.leaves},
        planned={**planned, **dict.fromkeys(offered, facts.number)},
        recent=(*record.recent, made)[-ROUNDS_KEPT:],
        tips=(*record.tips, facts.hash)[-TIPS_KEPT:],
    )


def _with_statements(known: Statements, new: tuple[Statement, ...]) -> Statements:
    """A voter's statements with later ones, which replace those on the same peers."""
    latest = {statement.subject: statement.favours for statement in new}
    kept = [(subject, favours) for subject, favours in known if subject not in latest]
    return (*kept, *latest.items())[-STATEMENTS_KEPT:]


def _united(
    ours: Mapping[str, Admitted], theirs: Mapping[str, Admitted], back: tuple[PeerId, ...]
) -> Mapping[str, Admitted]:
    """The invitations of the preferred branch, with the peers that the other branch brings back."""
    united = dict(ours)
    for name, invitation in theirs.items():
        peers = tuple(peer for peer in invitation.peers if peer in back)
        known = united.get(name)
        if peers:
            before = known.peers if known else ()
            united[name] = replace(
                known or invitation, peers=tuple(dict.fromkeys((*before, *peers)))
            )
    return united


def _sorted(peers: Iterable[PeerId]) -> tuple[PeerId, ...]:
    return tuple(sorted(peers))


def _of(table: Mapping[PeerId, T], peers: Iterable[PeerId]) -> dict[PeerId, T]:
    return {peer: table[peer] for peer in peers if peer in table}
