"""The values of `bench targets`, from what was read."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.journal import PeerDown, PeerForgotten, PeerUp, encode_event
from protocol.status import RoundSummary
from simulator.bench.targets.readings import (
    detection_s,
    noticed_at,
    percentile,
    pss_bytes,
    samples_per_s,
    whole_rounds,
)

ROUND = RoundSummary(
    number=1,
    view=0,
    certificate="ab",
    state_digest="",
    at=100.0,
    outcome="counted",
    members=("a", "b"),
    contributors=("a", "b"),
    samples=10,
    loss=None,
    phase_seconds={},
    reason="",
)


def certified(number: int, at: float, samples: int, contributors: tuple[str, ...]) -> RoundSummary:
    return replace(ROUND, number=number, at=at, samples=samples, contributors=contributors)


def test_pss_bytes_reads_the_rollup_of_a_process() -> None:
    text = b"00400000-7fff [rollup]\nRss:  900 kB\nPss:        500 kB\nPss_Anon:   400 kB\n"
    assert pss_bytes(text) == 500 * 1024
    with pytest.raises(ValueError, match="Pss"):
        pss_bytes(b"Rss: 900 kB\n")


def test_whole_rounds_begin_with_the_first_that_counts_all() -> None:
    both, one = ("a", "b"), ("a",)
    rounds = [
        certified(4, 130.0, 9, one),
        certified(1, 100.0, 5, one),
        certified(2, 110.0, 8, both),
        replace(certified(3, 115.0, 0, ()), certificate="", outcome="missed"),
    ]
    assert [one.number for one in whole_rounds(rounds, 2)] == [2, 4]
    assert whole_rounds(rounds[:2], 2) == []


def test_samples_per_s_leaves_out_the_samples_before_the_first_instant() -> None:
    both = ("a", "b")
    rounds = [
        certified(2, 100.0, 999, both),
        certified(3, 110.0, 300, both),
        certified(4, 120.0, 100, both),
    ]
    assert samples_per_s(rounds) == 20.0
    with pytest.raises(ValueError, match="no time"):
        samples_per_s(rounds[:1])
    with pytest.raises(ValueError, match="no time"):
        samples_per_s([rounds[0], rounds[0]])


def test_noticed_at_finds_the_loss_of_that_peer_after_the_kill() -> None:
    lines = [
        PeerDown(at=90.0, peer="lost", reason="an earlier loss"),
        PeerUp(at=95.0, peer="lost", path="direct", address=""),
        PeerDown(at=101.0, peer="other", reason="lost"),
        PeerForgotten(at=102.5, peer="lost", silent_s=2.0),
    ]
    journal = b"".join(encode_event(line) + b"\n" for line in lines)
    assert noticed_at(journal, "lost", 100.0) == 102.5
    assert noticed_at(journal, "lost", 103.0) is None
    # The writer is in the middle of a line.
    assert noticed_at(journal[:-1], "lost", 100.0) is None


def test_detection_s_is_that_of_the_last_survivor() -> None:
    assert detection_s({"a": 101.0, "b": 104.0}, 100.0) == 4.0
    assert detection_s({"a": 101.0, "b": None}, 100.0) is None
    assert detection_s({}, 100.0) is None


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(20, 0, -1)]
    assert percentile(values, 0.95) == 19.0
    assert percentile(values, 1.0) == 20.0
    assert percentile([7.0], 0.95) == 7.0
