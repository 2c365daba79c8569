"""Who votes, who is a newcomer and why, and when a verdict must not be good."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from daemon.cli.terminal.status_text import status_text
from daemon.observer.page import page_html
from protocol import journal
from protocol.journal import Newcomer, QuorumReport, RoundCertified, WorkAudited
from protocol.status import Status, StatusState, fold, status_at
from tests.story import AT, PEERS, day

NEWCOMER = Newcomer(peer=PEERS[3], favours=1, against=0, voters=6)


def told(*more: journal.JournalEvent, role: str = "observer", **changes: object) -> Status:
    """Return the status after a day whose last certificate is of rules 4."""
    events = day(role)
    last = max(i for i, event in enumerate(events) if isinstance(event, RoundCertified))
    fields = {"record_voters": PEERS[:2], "newcomers": (NEWCOMER,), **changes}
    events[last] = replace(events[last], **fields)
    state = StatusState()
    for event in (*events, *more):
        fold(state, event)
    return status_at(state, AT)


def audited(score: float, *, favours: bool | None) -> WorkAudited:
    return WorkAudited(
        at=AT, number=6, peer=PEERS[3], score=score, scores=(score,) * 3, favours=favours
    )


def test_membership_says_who_votes_and_why_a_peer_is_a_newcomer() -> None:
    status = told(audited(0.25, favours=False))
    assert status.membership is not None
    assert status.membership.voters == PEERS[:2]
    text = " ".join(status_text(status, False, 200).split())
    assert "2 voters: " in text
    assert "1 of 6 voters for it, 0 against; 3 needed" in text
    assert "25%, against" in text
    page = page_html(status)
    for words in ("Voters", "Newcomers", "1 of 6 voters for it", "1 against, by this node"):
        assert words in page
    assert any("speaks against it" in event.text for event in status.events)


def test_membership_keeps_the_newest_audit_of_each_peer() -> None:
    status = told(audited(0.25, favours=False), audited(0.95, favours=True))
    assert status.membership is not None
    assert [(one.score, one.favours) for one in status.membership.audits] == [(0.95, True)]


def test_a_verdict_is_not_good_after_a_degraded_certificate() -> None:
    assert told().level == "good"
    status = told(is_degraded=True)
    assert status.level == "warning"
    assert "not more than half of the voters signed it" in status.verdict
    assert status.membership is not None
    assert status.membership.last_full_at is None


def report(*, patient: bool, connected: int, last_full: int, reason: str = "") -> QuorumReport:
    return QuorumReport(
        voters=6,
        connected=connected,
        needed=4,
        patient=patient,
        last_full=last_full,
        full=True,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("patient", "connected", "words"),
    [
        (False, 6, "patience: not needed (6 of 6 voters connected"),
        (False, 2, "patience: waits (2 of 6 voters of this run are connected; wait 25 s)"),
        (True, 2, "patience: patient (2 of 6 voters connected, a full certificate needs 4; this"),
    ],
)
def test_status_and_page_say_when_the_last_full_certificate_was_and_whether_the_node_waits(
    patient: bool, connected: int, words: str
) -> None:
    reason = "2 of 6 voters of this run are connected; wait 25 s" if connected < 4 else ""
    newest = [event for event in day("node") if isinstance(event, RoundCertified)][-1]
    quorum = report(patient=patient, connected=connected, last_full=newest.number, reason=reason)
    status = told(quorum, role="node")
    text = " ".join(status_text(status, False, 300).split())
    full = f"number {newest.number}, "
    assert f"the last full certificate: {full}" in text
    assert " ago" in text.split("the last full certificate:")[1].split("patience")[0]
    assert words in text
    page = page_html(status)
    assert "Last full certificate" in page
    assert full in page
    assert "Patience" in page
    assert ("hypergpud run recover" in page) == bool(reason)


def test_last_full_certificate_is_the_one_before_a_degraded_one() -> None:
    status = told(is_degraded=True)
    assert status.membership is not None
    assert status.membership.last_full is None
    assert "the last full certificate: none seen yet" in status_text(status, False, 200)
    assert "hypergpud run recover" in page_html(status)


def test_a_verdict_is_not_good_while_a_third_of_the_contributors_is_clipped() -> None:
    events = [event for event in day("observer") if isinstance(event, RoundCertified)]
    contributors = [share.peer for share in events[-1].shares]
    third = len(contributors) // 3
    assert told(clipped=tuple(contributors[:third])).level == "good"
    status = told(clipped=tuple(contributors[: third + 1]))
    assert status.level == "warning"
    assert "weighed less than their samples" in status.verdict


def test_runs_of_earlier_rules_say_nothing_of_votes() -> None:
    status = told(record_voters=(), newcomers=())
    assert status.membership is None
    assert "Votes" not in status_text(status, False, 200)
