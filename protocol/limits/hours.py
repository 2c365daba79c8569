"""Hours of the week: "22:00-07:00", or "mon-fri 18:00-08:00, sat, sun".

Days are three letters, alone or as a range. Hours that end before they begin end on the next day.
An entry without hours is the whole day; an entry without days is every day.
"""

from __future__ import annotations

import re

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
# Entries of one text. A week has seven days, and a day rarely two entries.
MAX_ENTRIES = 28

_ENTRY = re.compile(
    r"(?P<days>[a-z]{3}(?:-[a-z]{3})?)?\s*(?:(?P<from>\d{1,2}:\d\d)-(?P<to>\d{1,2}:\d\d))?"
)
_EXAMPLE = 'such as "22:00-07:00", or "mon-fri 18:00-08:00, sat, sun"'


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """The minutes of a week in which something is allowed.

    `spans` are pairs (first, last + 1) of minutes since Monday 00:00, sorted and apart. Without
    spans, every minute is allowed.
    """

    spans: tuple[tuple[int, int], ...] = ()

    def allows(self, minute: int) -> bool:
        """Whether the minute of the week is allowed."""
        return not self.spans or any(first <= minute < end for first, end in self.spans)

    def next_change(self, minute: int) -> int | None:
        """Return the minutes from `minute` until the answer of `allows` changes; None if never."""
        if not self.spans or self.spans == ((0, WEEK_MINUTES),):
            return None
        now = self.allows(minute)
        ahead = [
            (edge - minute) % WEEK_MINUTES or WEEK_MINUTES for span in self.spans for edge in span
        ]
        changes = [one for one in ahead if self.allows((minute + one) % WEEK_MINUTES) != now]
        return min(changes, default=None)


def parse_hours(text: str) -> Hours:
    """Return the hours that a text names. Raises `ValueError`, whose text says what is right."""
    entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"it has {len(entries)} entries, and {MAX_ENTRIES} are enough for a week")
    minutes: set[int] = set()
    for entry in entries:
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"{entry!r} names no hours, {_EXAMPLE}")
        first, end = (_minute(found["from"]), _minute(found["to"])) if found["from"] else (0, 0)
        if found["from"] and first == end:
            raise ValueError(
                f"{entry!r} begins and ends at the same time; a whole day has no hours"
            )
        length = (end - first) % DAY_MINUTES or DAY_MINUTES
        for day in _days(found["days"], entry):
            begin = day * DAY_MINUTES + first
            minutes.update(minute % WEEK_MINUTES for minute in range(begin, begin + length))
    return Hours(spans=_spans(minutes))


def minute_text(minute: int, now: int) -> str:
    """Return the time of a minute of the week: "22:00", or "Mon 08:00" on another day."""
    clock = f"{minute // 60 % 24:02d}:{minute % 60:02d}"
    day = minute // DAY_MINUTES
    return clock if day == now // DAY_MINUTES else f"{DAYS[day].capitalize()} {clock}"


def _minute(clock: str) -> int:
    hours, minutes = (int(part) for part in clock.split(":"))
    if minutes > 59 or 60 * hours + minutes > DAY_MINUTES:
        raise ValueError(f"{clock} is no time of a day; 00:00 to 24:00 are")
    return 60 * hours + minutes


def _days(text: str | None, entry: str) -> list[int]:
    if text is None:
        return list(range(len(DAYS)))
    named = text.split("-")
    for name in named:
        if name not in DAYS:
            raise ValueError(f"{entry!r} names no day {name!r}; the days are {', '.join(DAYS)}")
    first, last = DAYS.index(named[0]), DAYS.index(named[-1])
    return [(first + i) % len(DAYS) for i in range((last - first) % len(DAYS) + 1)]


def _spans(minutes: set[int]) -> tuple[tuple[int, int], ...]:
    spans: list[tuple[int, int]] = []
    for minute in sorted(minutes):
        if spans and spans[-1][1] == minute:
            spans[-1] = (spans[-1][0], minute + 1)
        else:
            spans.append((minute, minute + 1))
    return tuple(spans)
