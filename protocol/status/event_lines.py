"""The list of events that a status shows. It is bounded, and equal events share a line.

There are two lists: what strangers can cause (connections, refusals) never pushes out what this
node did.
"""

from __future__ import annotations

from collections import deque

import msgspec
from msgspec.structs import replace

from protocol.journal import InputRefused, JournalEvent
from protocol.status.event_folding import CALM_LEVELS, RoundSpan, span_of
from protocol.status.records import KEPT_EVENTS, EventLine
from protocol.status.text_parts import NameOf

KEPT_ABOUT_PEERS = 15
"""How many of the KEPT_EVENTS sentences may be about peers that come, go or are refused."""


class KeptLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line, and what it stands for.

    `said` is its sentence without the count, and `times` how often it came. A line replaces the
    newest one of the same `kind`. `span` is set for rounds.
    """

    serial: int
    kind: str
    line: EventLine
    said: str
    times: int = 1
    span: RoundSpan | None = None


class EventLines:
    """The newest lines."""

    def __init__(self) -> None:
        # The newest line comes last.
        self._own: deque[KeptLine] = deque(maxlen=KEPT_EVENTS - KEPT_ABOUT_PEERS)
        self._about_peers: deque[KeptLine] = deque(maxlen=KEPT_ABOUT_PEERS)
        self._serial = 0

    def keep(
        self,
        event: JournalEvent,
        line: EventLine,
        name_of: NameOf,
        *,
        kind: str = "",
        about_peers: bool = False,
    ) -> None:
        """Add the line of an event.

        Args:
            event: what the line describes.
            line: the line.
            name_of: returns the name of a peer for a sentence.
            kind: replaces the newest line of its list where that has the same kind.
            about_peers: whether strangers can cause the event.
        """
        kept = self._about_peers if about_peers else self._own
        self._serial += 1
        made = KeptLine(serial=self._serial, kind=kind, line=line, said=line.text)
        newest = kept[-1] if kept else None
        if newest is not None and kind and newest.kind == kind:
            kept.pop()
        elif newest is not None and _is_repeated(event, newest, line):
            kept.pop()
            times = newest.times + 1
            shown = replace(line, text=f"{line.text} ({times} times)")
            made = replace(made, line=shown, times=times)
        elif (span := _take_joined(kept, event, name_of)) is not None:
            shown = replace(line, text=span.text)
            made = replace(made, line=shown, said=span.text, span=span)
        else:
            made = replace(made, span=span_of(event, name_of))
        kept.append(made)

    def newest(self) -> tuple[EventLine, ...]:
        """Return the kept lines, the newest first."""
        both = sorted([*self._own, *self._about_peers], key=lambda kept: -kept.serial)
        return tuple(kept.line for kept in both)


def _is_repeated(event: JournalEvent, newest: KeptLine, line: EventLine) -> bool:
    """Return whether a line says what the newest one says.

    A refusal has a count of its own in its sentence, and one sentence a minute.
    """
    if isinstance(event, InputRefused):
        return False
    return (newest.said, newest.line.level) == (line.text, line.level)


def _take_joined(kept: deque[KeptLine], event: JournalEvent, name_of: NameOf) -> RoundSpan | None:
    """Take the line of the rounds just before an event out, and return the span of all of them.

    Returns None, and changes nothing, where no line can be joined.
    """
    alone = span_of(event, name_of)
    if alone is None:
        return None
    for place in range(len(kept) - 1, -1, -1):
        before = kept[place]
        if before.span is not None and before.span.kind == alone.kind:
            joined = span_of(event, name_of, before.span)
            if joined is not None:
                del kept[place]
            return joined
        if before.line.level not in CALM_LEVELS:
            return None
    return None
