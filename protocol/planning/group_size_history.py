"""What a plan remembers of group sizes for the next plan.

A plan carries the history itself, so that a check of the plan needs nothing beyond the plan.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

FEW_ROUNDS, MORE_ROUNDS = 2, 3
"""Consecutive rounds in which another size must be much better, or a little better."""

MOST_MEMBERS = 1 << 20


class GroupSizeHistory(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a plan leaves for the next one.

    `size` is the plan's group size. The model preferred larger (`leaning` 1) or smaller groups (-1)
    in the last `times` rounds.
    """

    size: Annotated[int, Meta(ge=1, le=MOST_MEMBERS)]
    leaning: Annotated[int, Meta(ge=-1, le=1)] = 0
    times: Annotated[int, Meta(ge=0, le=MORE_ROUNDS)] = 0
