"""The sentences: every event has one, and each says what a volunteer needs to know."""

from __future__ import annotations

import typing

import pytest

from protocol import journal
from protocol.status import EventLog, StatusState, describe, fold
from protocol.status.event_fold import EFFECTS
from protocol.status.event_text import WORDS
from tests.story import AT, ME, PEERS, certified, day

EVENTS: tuple[type[journal.JournalEvent], ...] = typing.get_args(journal.AnyEvent)


def test_every_event_type_has_an_effect_and_a_sentence() -> None:
    assert set(EFFECTS) == set(EVENTS)
    assert set(WORDS) == set(EVENTS)


@pytest.mark.parametrize("event", day() + day("observer"), ids=lambda event: type(event).__name__)
def test_sentences_read_like_sentences(event: journal.JournalEvent) -> None:
    level, text = describe(event)
    assert level in ("info", "good", "warning", "bad")
    assert text[0].isupper()
    assert text[-1] in ".]"
    assert ".." not in text


@pytest.mark.parametrize(
    ("claimed", "ending"),
    [
        ("12500000000000000000", "; 12.5 tokens claimed."),
        ("1234000000000000000000000", "; 1,234,000 tokens claimed."),
        ("0", "; 0 tokens claimed."),
        ("", "3 samples reported to the chain."),
    ],
)
def test_claimed_base_units_become_tokens(claimed: str, ending: str) -> None:
    level, words = describe(
        journal.ChainReport(profile="hypergpu", state="live", samples=3, claimed=claimed)
    )
    assert (level, words.endswith(ending)) == ("good", True), words


ALONE = journal.Alone(number=3, samples_pending=2160, reason="")


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            ALONE,
            "Waiting for more nodes. 2,160 samples are kept and count once enough of them join.",
        ),
        (
            journal.ViewPassed(number=103, view=2, reason="its leader z4TPJT55 gave up"),
            "Round 103 failed (try 3): its leader z4TPJT55 gave up. Retrying.",
        ),
        (
            journal.ChainReport(profile="hypergpu", state="waiting"),
            "Not registered with the chain yet; this happens when training begins.",
        ),
        (
            journal.ChainReport(profile="hypergpu", state="down", reason="connection refused"),
            "Training continues unpaid: the chain is unreachable (connection refused).",
        ),
        (
            journal.PeerRegistered(peer=PEERS[1], state="expired", reason="its wallet is locked"),
            f"{PEERS[1][-8:]} is unpaid: its wallet is locked.",
        ),
        (
            journal.PeerRegistered(peer=PEERS[1], state="suspended"),
            f"{PEERS[1][-8:]} is unpaid: the chain has not heard from it lately.",
        ),
    ],
)
def test_sentences(event: journal.JournalEvent, sentence: str) -> None:
    assert describe(event)[1] == sentence


def test_a_counted_round_says_so_and_no_more() -> None:
    level, text = describe(certified(5, "counted"))
    assert (level, text.endswith(". Your work counted.")) == ("good", True)


def test_the_log_says_once_that_the_node_waits_for_others() -> None:
    events = EventLog()
    assert events.describe(ALONE) is not None
    assert events.describe(ALONE) is None
    plan = journal.Planned(number=4, view=0, leader="a", members=("a", "b"), reason="")
    assert events.describe(plan) is not None
    assert events.describe(ALONE) is not None


def test_the_status_says_once_that_the_node_waits_for_others() -> None:
    state = StatusState()
    trained = journal.Trained(at=AT, number=3, steps=1, samples=5, loss=1.0, seconds=1.0)
    for event in (ALONE, trained, ALONE, trained, ALONE):
        fold(state, event)
    assert sum("Waiting for more nodes" in line.text for line in state.newest_lines()) == 1


def test_a_certificate_says_what_caps_and_the_clip_took_from_this_node() -> None:
    def text(weight: int | None = None, kept: dict[str, float] | None = None) -> str:
        event = certified(5, "counted", weight=weight, kept=kept)
        return describe(event, lambda peer: "you" if peer == ME else "x")[1]

    assert text(kept={ME: 0.97}).endswith("Your work counted.")
    assert text(weight=40).endswith("Your work counted: 40 of 100 samples counted.")
    assert text(kept={ME: 0.5, PEERS[1]: 0.1}).endswith(
        "Your work counted: the clip left 50% of the work."
    )
    assert text(weight=40, kept={ME: 0.5}).endswith(
        "Your work counted: 40 of 100 samples counted and the clip left 50% of the work."
    )
