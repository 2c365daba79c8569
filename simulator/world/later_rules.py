"""A version of the rules that this program does not have, to test two releases in one world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from protocol.averaging.vector_layout import share_out
from protocol.rules.registry import RULE_SETS
from protocol.rules.versions import CURRENT_RULES, KNOWN_RULES

LATER_RULES = max(KNOWN_RULES) + 1


def ties_to_the_last(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Share out chunks as `share_out` does, but give the extra chunks of ties to the last ones."""
    return tuple(chunks - border for border in reversed(share_out(chunks, list(reversed(shares)))))


@contextmanager
def later_rules() -> Iterator[int]:
    """Register `LATER_RULES` inside the block: the current rules with another tie rule.

    Yields that version.
    """
    RULE_SETS[LATER_RULES] = msgspec.structs.replace(
        RULE_SETS[CURRENT_RULES], version=LATER_RULES, share_out=ties_to_the_last
    )
    try:
        yield LATER_RULES
    finally:
        del RULE_SETS[LATER_RULES]
