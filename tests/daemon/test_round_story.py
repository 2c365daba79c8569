"""Tests of the story of a round, and of the reader of journal files."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.journal_reader import JournalReader
from daemon.round_story import RoundStories
from protocol.journal import (
    Alone,
    Contributor,
    JournalEvent,
    NodeStarted,
    NodeStopped,
    PeerDown,
    PhaseEntered,
    Planned,
    RoundCertified,
    Trained,
    ViewPassed,
    Warned,
    encode_event,
)

ME, ANNA, BERT, CARO = "me", "12D3KooWANNAAAAA", "12D3KooWBERTTTTT", "12D3KooWCAROOOOO"
BEGAN_AT = 1_795_968_000.0

STARTED = NodeStarted(
    peer=ME,
    name="ada",
    role="node",
    version="0",
    addresses=(),
    run="a1b2c3d4e5f6",
    run_name="demo",
    task="t",
    engine="native",
    min_peers=2,
)


def certified(number: int, view: int = 0, members: tuple[str, ...] = (ME, ANNA)) -> RoundCertified:
    return RoundCertified(
        number=number,
        view=view,
        certificate="cafe" * 16,
        parent="beef" * 16,
        members=members,
        shares=(
            Contributor(peer=ME, samples=1080, loss=2.0),
            Contributor(peer=ANNA, samples=900, loss=2.1),
        ),
        samples=1980,
        loss=2.05,
        state_digest="",
        outcome="counted",
        phase_seconds={"train": 20.0, "scatter": 1.25},
        reason="2 of 3 contributions",
        plan="All 3 ready nodes average in one group.",
        voters=(ME, ANNA),
    )


def eventful_round() -> list[JournalEvent]:
    """Round 7: a failed view, then a certificate without one of its members."""
    events: list[tuple[float, JournalEvent]] = [
        (0.0, STARTED),
        (0.5, certified(6, members=(ME, ANNA, BERT, CARO))),
        (1.0, PhaseEntered(number=7, view=0, phase="train", reason="the round lasts 20 s")),
        (21.0, Trained(number=7, steps=5, samples=1080, loss=2.0, seconds=19.5)),
        (21.0, PhaseEntered(number=7, view=0, phase="ready", reason="led by CARO")),
        (21.4, PhaseEntered(number=7, view=0, phase="scatter", reason="plan of view 0")),
        (
            21.4,
            Planned(
                number=7,
                view=0,
                leader=CARO,
                members=(ME, ANNA, BERT, CARO),
                reason="All 4 ready nodes average in one group.",
            ),
        ),
        (24.0, PeerDown(peer=CARO, reason="the connection timed out")),
        (25.0, ViewPassed(number=7, view=0, reason="its leader CARO gave up")),
        (25.0, PhaseEntered(number=7, view=1, phase="ready", reason="leading")),
        (25.5, PhaseEntered(number=7, view=1, phase="scatter", reason="plan of view 1")),
        (
            25.5,
            Planned(
                number=7,
                view=1,
                leader=ME,
                members=(ME, ANNA, BERT),
                reason="All 3 ready nodes average in one group.",
            ),
        ),
        (27.0, PhaseEntered(number=7, view=1, phase="vote", reason="all slices are summed")),
        (27.5, certified(7, view=1, members=(ME, ANNA, BERT))),
        (27.5, PhaseEntered(number=8, view=0, phase="train", reason="the round lasts 20 s")),
    ]
    return [replace(event, at=BEGAN_AT + at) for at, event in events]


def write(path: Path, events: list[JournalEvent], tail: bytes = b"") -> None:
    path.write_bytes(b"".join(encode_event(event) + b"\n" for event in events) + tail)


def test_story_has_views_with_leader_plan_phases_and_failure() -> None:
    (story,) = RoundStories(keep=1, only=7).read(eventful_round()).stories
    first, second = story.views
    assert (first.leader, first.failure) == (CARO, "its leader CARO gave up")
    assert [(phase.phase, phase.seconds) for phase in first.phases] == [
        ("train", 20.0),
        ("ready", pytest.approx(0.4)),
        ("scatter", pytest.approx(3.6)),
    ]
    assert (second.leader, second.failure, second.failed_at) == (ME, "", None)
    assert story.state == "certified"
    assert story.absent == (CARO,)
    assert [note.at - BEGAN_AT for note in story.notes] == [24.0]


def test_story_of_a_round_without_a_plan_names_members_that_were_lost() -> None:
    events: list[JournalEvent] = [
        STARTED,
        certified(6, members=(ME, ANNA)),
        PhaseEntered(number=7, view=0, phase="train", reason="the round lasts 20 s"),
        PeerDown(peer=ANNA, reason="the connection timed out"),
        PeerDown(peer=BERT, reason="no member of round 6"),
    ]
    (story,) = RoundStories(keep=1, only=7).read(events).stories
    assert [note.text for note in story.notes] == [
        "Lost the connection to ANNAAAAA: the connection timed out."
    ]


def test_story_without_number_is_the_last_round() -> None:
    (story,) = RoundStories(keep=1).read(eventful_round()).stories
    assert (story.number, story.state) == (8, "open")
    assert story.views[0].phases[0].seconds is None


def test_stories_keep_only_the_newest_rounds() -> None:
    events = [certified(number) for number in range(1, 50)]
    stories = RoundStories(keep=3).read(events)
    assert [story.number for story in stories.stories] == [47, 48, 49]
    assert (stories.first, stories.last) == (1, 49)


def test_rounds_of_two_runs_with_one_number_are_two_stories() -> None:
    other = replace(STARTED, run="ffff", run_name="other")
    stories = RoundStories(keep=9).read([STARTED, certified(1), other, certified(1)])
    assert [(story.run_name, story.number) for story in stories.stories] == [
        ("demo", 1),
        ("other", 1),
    ]


def test_stop_of_the_node_ends_the_phase_and_is_noted() -> None:
    phase = PhaseEntered(number=1, view=0, phase="train", reason="", at=10.0)
    stopped = NodeStopped(reason="it was asked to", at=15.0)
    (story,) = RoundStories(keep=1).read([phase, stopped]).stories
    assert story.views[0].phases[0].seconds == 5.0
    assert len(story.notes) == 1


def test_node_alone_has_the_state_alone() -> None:
    alone = Alone(number=3, samples_pending=2160, reason="")
    (story,) = RoundStories(keep=1).read([alone]).stories
    assert story.state == "alone"


def test_journal_reader_reads_older_files_first_and_skips_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(tmp_path / "journal.jsonl.2", [Warned(code="A", message="first")])
    write(tmp_path / "journal.jsonl.1", [Warned(code="B", message="second")], b'{"type":"War')
    write(path, [Warned(code="C", message="third")], b'\n{"type":"OfALaterVersion"}\n')
    reader = JournalReader(path)
    assert [event.code for event in reader if isinstance(event, Warned)] == ["A", "B", "C"]
    assert reader.unreadable == 2


def test_journal_reader_reads_a_certificate_of_an_older_version(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    old = (
        b'{"type":"RoundCertified","at":1.0,"number":4,"view":0,"certificate":"aa","parent":"bb",'
        b'"members":["me"],"shares":[],"samples":0,"loss":null,"state_digest":"",'
        b'"outcome":"idle","phase_seconds":{},"reason":"","plan":"","rows":[1],'
        b'"predicted_s":null}\n'
    )
    path.write_bytes(old)
    (event,) = JournalReader(path)
    assert isinstance(event, RoundCertified)
    assert event.voters == ()


def test_journal_reader_without_a_journal_is_empty(tmp_path: Path) -> None:
    assert list(JournalReader(tmp_path / "journal.jsonl")) == []
