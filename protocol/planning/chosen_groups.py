"""The result of a choice."""

from __future__ import annotations

import msgspec

from protocol.planning.group_proposals import Groups
from protocol.planning.group_size_history import GroupSizeHistory


class GroupChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of a round, and the reason for them.

    `shares` are the fractions of the vector that the positions own. `predicted_s` is None if too
    little is measured.
    """

    groups: Groups
    shares: tuple[float, ...]
    predicted_s: float | None
    reason: str
    after: GroupSizeHistory | None
