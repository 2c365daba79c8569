"""Takes the trainer's work into the ledger, and makes durable offers of it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.services.training.native.state.state_store import StateStore
from protocol.averaging.vector_layout import Vector
from protocol.contribution.offer import NOTHING, Offer
from protocol.journal import NOT_OFFERED, JournalEvent, Trained, Warned, WorkDropped
from protocol.messages.offer import DataStretch
from protocol.ports.disk import DiskFull
from protocol.ports.trainer import Work

# The time between attempts to make an offer durable on a full disk.
DISK_RETRY_S = 10.0
# The reason for dropping work whose values are not finite, or that began at such values.
DIVERGED = "training diverged"


class WorkIntake:
    """One node's way from work to the ledger.

    The journal counts every sample that enters the ledger or is dropped before.
    """

    def __init__(self, state_store: StateStore, record: Callable[[JournalEvent], None]) -> None:
        self._state_store, self._record = state_store, record
        self._leaving = trio.Event()

    def leave(self) -> None:
        """Make no further offer: give up an attempt that waits for space on the disk."""
        self._leaving.set()

    async def offer(
        self, work: Work, drawn: int | None, stretch: DataStretch | None = None
    ) -> tuple[Offer | None, bool]:
        """Add work to the ledger, and make a durable offer of all that is pending.

        Args:
            work: The work since the last hand-over.
            drawn: As for `Ledger.add`.
            stretch: As for `Ledger.add`.

        Returns:
            The offer, or None for work that may not enter the ledger; and whether the ledger has
            lost the trainer's parameters.
        """
        self._record_work(work)
        if not await self._is_finite(work, drawn):
            return None, True
        offer = await self.durable(work.delta, work.samples, drawn, stretch)
        # An offer that cannot be encoded was dropped, and its parameters are lost.
        return offer, bool(work.samples) and not self._state_store.ledger.pending

    async def add(self, work: Work, drawn: int | None, stretch: DataStretch | None = None) -> bool:
        """Add work for the next offer. Returns whether it may enter the ledger."""
        if work.samples:
            self._record_work(work)
        if not await self._is_finite(work, drawn):
            return False
        await self._state_store.ledger_store.add(work.delta, work.samples, drawn, stretch)
        return True

    def drop(self, work: Work, drawn: int | None, stretch: DataStretch | None = None) -> None:
        """Report work that was trained from values that are not finite."""
        self._state_store.ledger.drawn += work.samples if drawn is None else drawn
        if work.samples:
            self._record_work(work)
            self._record(WorkDropped(samples=work.samples, reason=DIVERGED))

    async def durable(
        self,
        delta: Vector,
        samples: int,
        drawn: int | None = None,
        stretch: DataStretch | None = None,
    ) -> Offer:
        """Make a durable offer; report a full disk and wait for space."""
        while True:
            try:
                return await self._state_store.ledger_store.make_offer(
                    delta, samples, drawn, stretch
                )
            except DiskFull as full:
                self._record(Warned(code="DISK_FULL", message=f"{NOT_OFFERED}: {full}"))
                # The samples are in the ledger already.
                samples, drawn, stretch = 0, 0, None
                with trio.move_on_after(DISK_RETRY_S):
                    await self._leaving.wait()
                    # Leaving needs the trainer's lock, and this offer is never sent.
                    return NOTHING

    async def _is_finite(self, work: Work, drawn: int | None) -> bool:
        """Return whether work may enter the ledger; report work that may not.

        One value that is not finite would spoil every later offer, and peers would refuse them.
        """
        if not work.samples or await self._state_store.is_fit(work.delta):
            return True
        self._state_store.ledger.drawn += work.samples if drawn is None else drawn
        self._record(
            Warned(
                code="DIVERGED",
                message=f"The loss became NaN or infinite; {work.samples:,} samples were discarded."
                " If this repeats, lower [inner] learning_rate or check loss().",
            )
        )
        self._record(WorkDropped(samples=work.samples, reason=DIVERGED))
        return False

    def _record_work(self, work: Work) -> None:
        """Record the work, so that the journal counts every sample of the ledger."""
        self._record(
            Trained(
                number=self._state_store.tip.number + 1,
                steps=work.steps,
                samples=work.samples,
                loss=work.loss,
                seconds=work.seconds,
            )
        )
