"""What a status says of the votes of a run, and what to do when a quorum is gone."""

from __future__ import annotations

from protocol import journal
from protocol.status.event_fold import fold
from protocol.status.state import StatusState
from protocol.status.verdict import verdict_of

ME, OWNER = "12D3KooWMe", "12D3KooWOwner"


def state(owner: str = OWNER) -> StatusState:
    begun = journal.NodeStarted(
        peer=ME,
        name="mine",
        role="node",
        version="1",
        addresses=(),
        run="ab",
        run_name="run",
        task="t",
        engine="native",
        min_peers=2,
        owner=owner,
    )
    return fold(StatusState(), begun)


def report(reason: str = "", *, full: bool = True, connected: int = 3) -> journal.QuorumReport:
    return journal.QuorumReport(
        voters=10,
        connected=connected,
        needed=6,
        patient=False,
        last_full=41,
        full=full,
        reason=reason,
    )


def test_quorum_that_is_gone_is_said_with_what_to_type() -> None:
    after = fold(state(), report("3 of 10 voters of this run are connected"))
    level, sentence = verdict_of(after, 1.0)
    assert level == "warning"
    for words in (
        "3 of 10 voters",
        "hypergpud run recover",
        "hypergpud run fork",
        "keeps its work",
    ):
        assert words in sentence
    assert "the run's owner types" in sentence
    assert "you type" in verdict_of(fold(state(ME), report("gone")), 1.0)[1]
    assert after.run.quorum is not None
    assert (after.run.quorum.voters, after.run.quorum.last_full) == (10, 41)


def test_quorum_that_is_back_is_said_no_more() -> None:
    after = fold(fold(state(), report("gone")), report(connected=10))
    assert "hypergpud run" not in verdict_of(after, 1.0)[1]


def test_certificate_without_a_quorum_is_never_good_news() -> None:
    level, sentence = verdict_of(fold(state(), report(full=False)), 1.0)
    assert level == "warning"
    assert "has no quorum of its voters; the last full one was number 41" in sentence
