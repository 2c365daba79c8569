"""Who votes in a run of rules 4, who is a newcomer and why, and what audits found."""

from __future__ import annotations

from msgspec.structs import replace

from protocol import journal
from protocol.identity import PeerId
from protocol.status.figures import clean, natural, quantity, whole
from protocol.status.peer_records import AuditSummary, MembershipSummary, NewcomerSummary
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState
from protocol.status.totals import with_audit

KEPT_AUDITS = 64
"""The audited peers that are shown, the latest first: as many as a plan has members."""

SHOWN_PEERS = 128
"""The most voters or newcomers that a status holds: twice a plan."""


def note_membership(state: StatusState, event: journal.RoundCertified) -> None:
    """Show what a certificate says of members; runs of earlier rules say nothing."""
    if not event.record_voters:
        return
    known = state.membership or MembershipSummary()
    state.membership = replace(
        known,
        voters=tuple(clean(peer, MAX_NAME_CHARS) for peer in event.record_voters[:SHOWN_PEERS]),
        newcomers=tuple(
            NewcomerSummary(peer=clean(each.peer, MAX_NAME_CHARS), reason=_why_newcomer(each))
            for each in event.newcomers[:SHOWN_PEERS]
        ),
        clipped=whole(len(event.clipped)),
        contributors=whole(len(event.shares)),
        is_degraded=event.is_degraded,
        last_full_at=known.last_full_at if event.is_degraded else natural(event.at),
        last_full=known.last_full if event.is_degraded else whole(event.number),
    )


def _why_newcomer(newcomer: journal.Newcomer) -> str:
    voters = whole(newcomer.voters)
    needed = voters // 3 + 1
    return (
        f"{whole(newcomer.favours)} of {quantity(voters, 'voter')} for it,"
        f" {whole(newcomer.against)} against; {needed} needed"
    )


def work_audited(state: StatusState, event: journal.WorkAudited) -> None:
    """Show this voter's newest audit of each peer."""
    known = state.membership or MembershipSummary()
    audit = AuditSummary(
        peer=clean(event.peer, MAX_NAME_CHARS),
        number=whole(event.number),
        score=natural(event.score, 1.0),
        audits=whole(len(event.scores)),
        favours=event.favours,
        reason=clean(event.reason, MAX_TEXT_CHARS),
    )
    state.totals = with_audit(state.totals, event.favours)
    others = (each for each in known.audits if each.peer != audit.peer)
    state.membership = replace(known, audits=(audit, *others)[:KEPT_AUDITS])


def membership_words(summary: MembershipSummary, peer: PeerId) -> str:
    """Say what a peer is in the run: "voter", "member", or "newcomer" with the reason."""
    if peer in summary.voters:
        return "voter"
    for newcomer in summary.newcomers:
        if newcomer.peer == peer:
            return f"newcomer: {newcomer.reason}"
    return "member"


def membership_trouble(state: StatusState) -> str:
    """Return why a verdict must not be good; "" where nothing speaks against it."""
    summary = state.membership
    if summary is None:
        return ""
    if summary.is_degraded:
        return (
            "The last certificate is degraded: not more than half of the voters signed it"
            + (f"; the last full one was number {summary.last_full}" if summary.last_full else "")
            + ". Start the nodes that vote, or, as the owner: hypergpud run recover"
        )
    if summary.clipped * 3 > summary.contributors:
        return (
            f"{summary.clipped} of {quantity(summary.contributors, 'contribution')} of the last"
            " round weighed less than their samples: they claim far more than the voters do"
        )
    return ""
