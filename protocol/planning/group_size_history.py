"""What one round's plan remembers for the next, in the plan itself: whoever checks a plan needs
nothing that it does not hold.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

# Rounds running in which a size must have been better, by much or by a little, before it is taken.
SOON, LATER = 2, 3
MOST_MEMBERS = 1 << 20


class GroupSizeHistory(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a round's plan leaves for the next: the size of its rows, and towards which sizes the
    model leaned, for how many rounds.
    """

    size: Annotated[int, Meta(ge=1, le=MOST_MEMBERS)]
    leaning: Annotated[int, Meta(ge=-1, le=1)] = 0  # 1: larger rows would be faster
    times: Annotated[int, Meta(ge=0, le=LATER)] = 0
