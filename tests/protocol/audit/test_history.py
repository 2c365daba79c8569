"""The scores that one voter gave, and the peers that it could not audit."""

from __future__ import annotations

from protocol.audit.history import KEPT_PEERS, AuditHistory


def test_history_forgives_a_peer_that_is_out_of_reach_once() -> None:
    history = AuditHistory()
    assert not history.misses("a")
    history.reaches("a")
    assert not history.misses("a")
    assert history.misses("a")
    assert not history.misses("b")


def test_history_forgets_the_longest_missed_peers_first() -> None:
    history = AuditHistory()
    for number in range(KEPT_PEERS + 1):
        assert not history.misses(str(number))
    assert history.misses(str(KEPT_PEERS))
    assert not history.misses("0")
