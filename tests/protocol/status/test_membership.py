"""Who votes, who is a newcomer and why, and when a verdict must not be good."""

from __future__ import annotations

from msgspec.structs import replace

from daemon.cli.terminal.status_text import status_text
from daemon.observer.page import page_html
from protocol import journal
from protocol.journal import Newcomer, RoundCertified, WorkAudited
from protocol.status import Status, StatusState, fold, status_at
from tests.story import AT, PEERS, day

NEWCOMER = Newcomer(peer=PEERS[3], favours=1, against=0, voters=6)


def told(*more: journal.JournalEvent, **changes: object) -> Status:
    """Return the status after a day whose last certificate is of rules 4."""
    events = day("observer")
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
