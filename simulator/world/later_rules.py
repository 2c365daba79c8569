"""A version of the rules that this program does not have: what two releases in one world are tried
with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from protocol.averaging.vector_layout import share_out
from protocol.rules.registry import RULE_SETS
from protocol.rules.versions import CURRENT_RULES

LATER_RULES = CURRENT_RULES + 1


def ties_to_the_last(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
    """As `share_out`, but of equal remainders the last ones get a chunk more."""
    return tuple(chunks - border for border in reversed(share_out(chunks, list(reversed(shares)))))


@contextmanager
def later_rules() -> Iterator[int]:
    """Inside, the functions of `LATER_RULES` are there as well: the current ones with another tie
    rule.

    Gives that version.
    """
    RULE_SETS[LATER_RULES] = msgspec.structs.replace(
        RULE_SETS[CURRENT_RULES], version=LATER_RULES, share_out=ties_to_the_last
    )
    try:
        yield LATER_RULES
    finally:
        del RULE_SETS[LATER_RULES]
