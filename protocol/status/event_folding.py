"""Equal events as one line: "Rounds 96-98 are certified", or a sentence and how often it came.

A run certifies a round every few seconds. One line for each would push everything else out of the
list of events. What is not equal keeps a line of its own: a round with another outcome, another
number of contributors or another reason, and every warning.
"""

from __future__ import annotations

import msgspec

from protocol import journal
from protocol.status.event_text import MAX_SENTENCE_CHARS
from protocol.status.figures import clean, natural, whole
from protocol.status.round_text import certified_text, certified_words, planned_text
from protocol.status.text_parts import NameOf
from protocol.status.training_text import trained_text

CALM_LEVELS = frozenset({"info", "good"})
"""Lines that a fold may reach over. A warning ends it, so that the order of trouble stays."""


class RoundSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive rounds whose events are equal but for their number and what adds up.

    `kind` is "certified", "trained" or "planned". `alike` is what must be equal. `text` is the
    sentence for all of them.
    """

    kind: str
    alike: tuple[str, ...]
    first: int
    last: int
    samples: int
    seconds: float
    text: str


def span_of(
    event: journal.JournalEvent, name_of: NameOf, before: RoundSpan | None = None
) -> RoundSpan | None:
    """Return the span of an event, joined to the span before it where the two are alike.

    Returns None for an event that is not folded, and where `before` cannot be joined.
    """
    if isinstance(event, journal.RoundCertified):
        kind, number, samples, seconds = "certified", event.number, event.samples, 0.0
        counts = f"{len(event.shares)} of {len(event.members)}"
        alike: tuple[str, ...] = (event.outcome, counts, *certified_words(event, name_of))
    elif isinstance(event, journal.Trained) and event.samples > 0:
        kind, number, samples, seconds = (
            "trained",
            event.number,
            event.samples,
            natural(event.seconds),
        )
        alike = ()
    elif isinstance(event, journal.Planned):
        kind, number, samples, seconds = "planned", event.number, 0, 0.0
        alike = (str(len(event.members)),)
    else:
        return None
    first = whole(number)
    if before is not None:
        # A second try plans the same round again.
        follows = 0 <= first - before.last <= 1 if kind == "planned" else first == before.last + 1
        if before.kind != kind or before.alike != alike or not follows:
            return None
        first = before.first
        samples, seconds = whole(before.samples + samples), before.seconds + seconds
    span = RoundSpan(
        kind=kind,
        alike=alike,
        first=first,
        last=whole(number),
        samples=samples,
        seconds=seconds,
        text="",
    )
    text = clean(_text(span, event, name_of), MAX_SENTENCE_CHARS)
    return msgspec.structs.replace(span, text=text)


def _text(span: RoundSpan, event: journal.JournalEvent, name_of: NameOf) -> str:
    rounds = (span.first, span.last)
    if isinstance(event, journal.RoundCertified):
        return certified_text(event, name_of, rounds, span.samples)
    if isinstance(event, journal.Trained):
        return trained_text(event, rounds, span.samples, span.seconds)
    assert isinstance(event, journal.Planned)
    return planned_text(event, name_of, rounds)
