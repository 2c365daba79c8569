"""Whose clock is wrong, from what peers say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.network.clock_offsets import (
    MOST_OFFSET_S,
    ClockReading,
    judge_clocks,
    own_clock_text,
    peer_clock_text,
    reading_of,
)

YEARS_S = 5 * 365 * 86_400.0


def read(**offsets: float) -> dict[str, ClockReading]:
    return {name: ClockReading(offset_s=value, error_s=0.05) for name, value in offsets.items()}


def test_reading_of_an_exchange_takes_half_of_its_time() -> None:
    reading = reading_of(100.0, 107.0, 4.0)
    assert (reading.offset_s, reading.error_s) == (5.0, 2.0)


def test_judge_clocks_that_agree_finds_nothing() -> None:
    finding = judge_clocks(read(a=0.2, b=-3.0, c=59.0))
    assert (finding.compared, finding.own_offset_s, dict(finding.wrong)) == (3, None, {})
    assert judge_clocks({}).compared == 0


def test_judge_clocks_names_the_one_peer_that_differs() -> None:
    finding = judge_clocks(read(a=0.2, b=-YEARS_S))
    assert finding.own_offset_s is None
    assert dict(finding.wrong) == {"b": -YEARS_S}
    assert not finding.unclear
    text = peer_clock_text("node-b", -YEARS_S, unclear=False)
    assert text == "The clock of node-b is 1825 d behind. Rounds do not need it; tell its person"


def test_judge_clocks_finds_that_this_one_is_wrong() -> None:
    finding = judge_clocks(read(a=YEARS_S, b=YEARS_S + 1, c=YEARS_S - 1))
    assert finding.own_offset_s == -YEARS_S
    assert not finding.wrong
    assert own_clock_text(finding).startswith(
        "This machine's clock is 1825 d behind by those of 3 of 3 peers. Let the system"
    )


def test_judge_two_clocks_cannot_tell_which_one_is_wrong() -> None:
    finding = judge_clocks(read(a=7200.0))
    assert (finding.own_offset_s, dict(finding.wrong)) == (None, {"a": 7200.0})
    assert finding.unclear
    assert "one of both is wrong" in peer_clock_text("a", 7200.0, unclear=True)


def test_judge_clocks_doubts_slow_answers() -> None:
    slow = {"a": ClockReading(offset_s=70.0, error_s=20.0)}
    assert not judge_clocks(slow).wrong


@given(st.dictionaries(st.text(max_size=3), st.floats(-1e10, 1e10), max_size=9))
def test_judge_clocks_of_any_offsets_contradicts_no_majority(offsets: dict[str, float]) -> None:
    finding = judge_clocks(read(**offsets) if all(k.isidentifier() for k in offsets) else {})
    near = sum(abs(one) <= MOST_OFFSET_S for one in offsets.values())
    if finding.compared and 2 * (near + 1) > len(offsets) + 1:
        assert finding.own_offset_s is None
