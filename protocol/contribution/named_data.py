"""Which samples an offer was trained on, so that voters can audit the work behind it.

The stretches follow the work through the ledger (`protocol/contribution/ledger.py`): those of the
trajectory up to its offer, those after it, and those of earlier trajectories that wait. They are
not written to disk. After a restart the first offer names too little, which an audit forgives once.
"""

from __future__ import annotations

from msgspec.structs import replace

from protocol.messages.offer import MAX_DRAWN, MAX_STRETCHES, DataStretch

KEPT = 4 * MAX_STRETCHES
"""The stretches that are kept of each part, the newest: more than one offer can name."""


class NamedData:
    """The stretches behind one ledger's work."""

    def __init__(self) -> None:
        self._trajectory: list[DataStretch] = []
        self._later: list[DataStretch] = []
        self._waiting: list[DataStretch] = []

    @property
    def named(self) -> tuple[DataStretch, ...]:
        """What the next offer names: its longest stretches, at most `MAX_STRETCHES`."""
        stretches = [*self._waiting, *self._trajectory]
        longest = sorted(stretches, key=lambda stretch: -stretch.count)[:MAX_STRETCHES]
        return tuple(stretch for stretch in stretches if stretch in longest)[:MAX_STRETCHES]

    def add(self, stretch: DataStretch, *, offer_sent: bool) -> None:
        """Name the samples of work that enters the ledger."""
        part = self._later if offer_sent else self._trajectory
        last = part[-1] if part else None
        if (
            last is not None
            and last.tip == stretch.tip
            and last.first + last.count == stretch.first
            and last.count + stretch.count <= MAX_DRAWN
        ):
            part[-1] = replace(last, count=last.count + stretch.count)
        else:
            part.append(stretch)
            del part[:-KEPT]

    def end(self) -> None:
        """End the trajectory, as the ledger does: steps after its offer begin the next one."""
        self._waiting = [*self._waiting, *self._trajectory][-KEPT:]
        self._trajectory, self._later = self._later, []

    def nothing_waits(self) -> None:
        """Forget earlier trajectories: they are certified, or dropped."""
        self._waiting = []

    def drop(self) -> None:
        """Forget everything."""
        self._trajectory, self._later, self._waiting = [], [], []
