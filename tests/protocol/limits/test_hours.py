"""Hours of the week as text and as a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.limits.hours import DAY_MINUTES, WEEK_MINUTES, Hours, minute_text, parse_hours

MONDAY, FRIDAY, SUNDAY = 0, 4 * DAY_MINUTES, 6 * DAY_MINUTES


def at(day: int, clock: str) -> int:
    hours, minutes = clock.split(":")
    return day + 60 * int(hours) + int(minutes)


@pytest.mark.parametrize(
    ("text", "minute", "allowed", "ahead"),
    [
        ("", at(MONDAY, "12:00"), True, None),
        ("22:00-07:00", at(MONDAY, "21:59"), False, 1),
        ("22:00-07:00", at(MONDAY, "22:00"), True, 9 * 60),
        ("22:00-07:00", at(SUNDAY, "23:00"), True, 8 * 60),
        ("22:00-07:00", at(MONDAY, "07:00"), False, 15 * 60),
        ("00:00-24:00", at(MONDAY, "07:00"), True, None),
        ("mon-fri 18:00-08:00, sat, sun", at(FRIDAY, "17:00"), False, 60),
        ("mon-fri 18:00-08:00, sat, sun", at(FRIDAY, "19:00"), True, 53 * 60),
        ("fri-mon 10:00-11:00", at(SUNDAY, "10:30"), True, 30),
        ("fri-mon 10:00-11:00", at(MONDAY, "11:00"), False, 95 * 60),
        ("SAT", at(SUNDAY, "00:00"), False, 6 * DAY_MINUTES),
    ],
)
def test_hours_allow_their_minutes(
    text: str, minute: int, allowed: bool, ahead: int | None
) -> None:
    hours = parse_hours(text)
    assert hours.allows(minute) is allowed
    assert hours.next_change(minute) == ahead


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("night", "names no hours"),
        ("22:00", "names no hours"),
        ("25:00-26:00", "is no time of a day"),
        ("22:70-23:00", "is no time of a day"),
        ("08:00-08:00", "begins and ends at the same time"),
        ("foo 08:00-09:00", "names no day 'foo'"),
        ("mon-foo", "names no day 'foo'"),
        (",".join(["mon"] * 29), "29 entries"),
    ],
)
def test_hours_that_make_no_sense_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_hours(text)


@given(st.text(max_size=80))
def test_hours_of_any_text_are_hours_or_a_value_error(text: str) -> None:
    try:
        hours = parse_hours(text)
    except ValueError:
        return
    assert all(0 <= first < end <= WEEK_MINUTES for first, end in hours.spans)


@given(
    st.lists(
        st.tuples(st.integers(0, WEEK_MINUTES - 1), st.integers(1, 600)), min_size=1, max_size=5
    ),
    st.integers(0, WEEK_MINUTES - 1),
)
def test_next_change_is_the_first_minute_with_another_answer(
    parts: list[tuple[int, int]], minute: int
) -> None:
    minutes = {(first + i) % WEEK_MINUTES for first, length in parts for i in range(length)}
    spans = tuple((one, one + 1) for one in sorted(minutes))
    hours = Hours(spans=spans)
    ahead = hours.next_change(minute)
    assert ahead is not None
    assert hours.allows((minute + ahead) % WEEK_MINUTES) != hours.allows(minute)
    if ahead < 700:
        same = {hours.allows((minute + i) % WEEK_MINUTES) for i in range(ahead)}
        assert same == {hours.allows(minute)}


def test_minute_text_names_another_day() -> None:
    assert minute_text(at(MONDAY, "22:00"), at(MONDAY, "09:00")) == "22:00"
    assert minute_text(at(FRIDAY, "08:05"), at(MONDAY, "09:00")) == "Fri 08:05"
