"""Which samples this node's trainer draws, and how many of its lanes are used.

Until its offer, a node draws along its lane of the round. During the exchange it draws along the
reserve of the tip, whose length is fixed beforehand: what the offer says of the lane stays true.
"""

from __future__ import annotations

import msgspec

from daemon.services.training.native.state.state_store import StateStore
from protocol.digest import Digest
from protocol.messages.offer import MAX_DRAWN, DataStretch
from protocol.ports.trainer import Lane


class LanePart(msgspec.Struct, frozen=True, kw_only=True):
    """The rest of a lane, as the trainer gets it."""

    lane: Lane
    # Samples of the whole lane before this part.
    used: int
    is_reserve: bool
    # The tip whose lane it is, and the place of the lane's first sample in the whole lane.
    tip: Digest = b""
    before: int = 0
    # The samples of a reserve, which begins again behind its last one; 0 of a lane that does not.
    repeats_after: int = 0


class DataLanes:
    """The lanes of one node. The ledger counts the samples used of the round's lane."""

    def __init__(self, state_store: StateStore) -> None:
        self._state_store = state_store
        self.present = LanePart(lane=Lane(base=0, index=0, stride=1), used=0, is_reserve=False)
        # The samples used of the reserve of this tip.
        self._reserve_used: tuple[Digest, int] = (b"", 0)
        # The part whose samples were named last, and how many of them.
        self._named: tuple[LanePart, int] = (self.present, 0)

    def main(self) -> LanePart:
        """Return the unused rest of the round's lane."""
        store = self._state_store
        used = store.ledger.drawn
        return LanePart(
            lane=store.tip.lane(store.me).after(used),
            used=used,
            is_reserve=False,
            tip=store.tip.hash,
            before=store.tip.reserve,
        )

    def reserve(self) -> LanePart:
        """Return the unused rest of the tip's reserve."""
        store = self._state_store
        tip, used = self._reserve_used
        used = used if tip == store.tip.hash else 0
        lane = store.tip.reserve_lane(store.me).after(used)
        return LanePart(
            lane=lane,
            used=used,
            is_reserve=True,
            tip=store.tip.hash,
            repeats_after=store.tip.reserve,
        )

    def stretch(self, drawn: int) -> DataStretch | None:
        """Name the samples that the trainer used since the last call; None without any.

        `drawn` are all that it used since the present part began (`Work.drawn`). A step in progress
        has used its samples already, so their names come one work too early.
        """
        part, named = self._named
        before = named if part is self.present else 0
        self._named = (self.present, drawn)
        if drawn <= before or not self.present.tip:
            return None
        first, count = self.present.before + self.present.used + before, drawn - before
        if self.present.repeats_after:
            # What repeats is named already, and a number behind the reserve means the lane.
            count = min(count, self.present.repeats_after - first)
        if count <= 0:
            return None
        return DataStretch(tip=self.present.tip, first=first, count=min(count, MAX_DRAWN))

    def count(self, drawn: int) -> int:
        """Count what the trainer used of the present part.

        Args:
            drawn: all that it used since this part began (`Work.drawn`).

        Returns:
            How many samples of the round's lane are newly used.
        """
        used = self.present.used + drawn
        if self.present.is_reserve:
            self._reserve_used = (self._state_store.tip.hash, used)
            return 0
        return max(0, used - self._state_store.ledger.drawn)
