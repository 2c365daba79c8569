"""Uses the trainer in rounds: takes what it learned, and moves it to the next anchor.

A trainer that dies costs its node only the steps that were not handed over: the node goes on
exchanging and voting.

Where the run overlaps, the trainer never pauses for a round. It hands over at the offer and trains
on along the reserve. The adoption settles the ledger and shifts the trainer by what changed: from
the parameters at its last hand-over, which are the old anchor minus the ledger's displacement, to
the new anchor minus what the ledger then holds. So steps since the hand-over begin the next
trajectory, and the ledger holds every other step once. Without overlap, the trainer pauses from the
offer to the adoption.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.training.data_lanes import LanePart
from daemon.services.training.native.training.trainer_session import COLLECT_S, TrainerSession
from daemon.services.training.native.training.work_intake import WorkIntake
from protocol.contribution.offer import Offer
from protocol.journal import JournalEvent, Warned
from protocol.ports.trainer import Trainer, TrainerLost
from protocol.run.manifest import RoundRules


class TrainerLink:
    """One node's use of its trainer.

    A task that uses the trainer or the spare buffers holds `lock`.
    """

    def __init__(
        self,
        trainer: Trainer,
        state_store: StateStore,
        rules: RoundRules,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self._session = TrainerSession(trainer, state_store, rules, record)
        self._intake = WorkIntake(state_store, record)
        self._state_store, self._record = state_store, record
        self.lock = self._session.lock
        # Whether the trainer trains on during the exchange.
        self.overlaps = rules.overlaps
        # Whether the last offer has steps that the kept inner optimizer's state lacks.
        self._stale_inner = False

    async def begin(self) -> None:
        """Train from the local parameters as soon as there is a trainer."""
        async with self.lock:
            await self._session.from_local()

    async def hold(self) -> None:
        """Pause training until `release`. The work so far enters the ledger.

        The node goes on taking part in rounds, and offers what is pending. During an exchange the
        steps since the offer belong to the next anchor, so the trainer trains on until then.
        """
        session = self._session
        async with self.lock:
            session.held = True
            if session.is_training and not session.exchanging:
                await self._take_in(None)
                await self._keep_inner()

    async def release(self) -> None:
        """Train again from the local parameters, where `hold` paused training.

        Without overlap, training begins after the exchange that is under way: steps during it would
        belong to the anchor that it replaces.
        """
        session = self._session
        async with self.lock:
            if session.held:
                session.held = False
                if not (session.is_training or session.exchanging or session.waiting):
                    await session.from_local()

    async def _pause_if_held(self) -> None:
        """Pause a trainer that trained on through an exchange. Call with `lock` held."""
        if self._session.held and self._session.is_training:
            await self._take_in(None)
            await self._keep_inner()

    async def _keep_inner(self) -> None:
        try:
            await self._session.keep_inner()
        except TrainerLost as lost:
            self._session.warn_once(f"The inner optimizer's last steps are lost: {lost}")

    async def attend(self) -> None:
        """Start training whenever the trainer is missing, until cancelled."""
        await self._session.attend()

    async def resume(self) -> None:
        """Train on from the local parameters, along this round's lane.

        A trainer that is training goes on: it must not restart the count of its steps.
        """
        session = self._session
        async with self.lock:
            exchanging, session.exchanging, session.waiting = session.exchanging, False, False
            if exchanging and session.is_training:
                # The exchange led to no certificate, and the next one may be far away.
                await self._take_in(session.lanes.main())
                if session.is_training and not session.diverged:
                    # A trainer that dropped its work waits for parameters.
                    await session.shift()
            if session.diverged or (self.overlaps and not session.is_training):
                await self._begin_anew()
            elif not session.is_training:
                await session.resume()
            await self._pause_if_held()

    async def _begin_anew(self) -> None:
        """Train from the local parameters, whatever the trainer does."""
        session = self._session
        if session.is_training:
            # Steps from spoiled parameters count for nothing.
            try:
                taken = await session.take(None)
            except TrainerLost:
                taken = None
            if taken is not None:
                self._intake.drop(*taken)
        await session.from_local()

    async def make_offer(self) -> tuple[Offer, float | None]:
        """Take the trainer's work and make a durable offer. Call with `lock` held.

        Returns:
            The offer, which is empty when there is nothing to offer, and the training loss.
        """
        session = self._session
        loss: float | None = None
        offer: Offer | None = None
        session.exchanging, session.waiting = self.overlaps, not self.overlaps
        try:
            taken = await session.take(session.lanes.reserve() if self.overlaps else None)
            if taken is None:
                session.warn_once(
                    "The steps since the last offer are part of the next offer: the worker did not"
                    f" end its step within {COLLECT_S:g} s"
                )
            else:
                offer, session.diverged = await self._intake.offer(*taken)
                if offer is not None:
                    loss = taken[0].loss
                    self._stale_inner = True
        except TrainerLost as lost:
            session.warn_once(f"The steps since the last offer are lost: {lost}")
            if self.overlaps:
                session.missing()
        if session.diverged and self.overlaps:
            await self._begin_anew()
        return offer or await self._intake.durable(self._state_store.anchor.value, 0), loss

    async def keep_inner(self) -> None:
        """Copy the inner optimizer's state of the last offer. Call with `lock` held.

        The copy takes as long as two vectors of the model need, and nothing in a round waits for
        it: so it follows the offer.
        """
        if not self._stale_inner:
            return
        self._stale_inner = False
        try:
            await self._session.keep_inner()
        except TrainerLost as lost:
            self._session.warn_once(f"The inner optimizer's last steps are lost: {lost}")
            if self.overlaps:
                self._session.missing()

    async def end_trajectory(self, *, joining: bool) -> None:
        """Add the work of this anchor to the ledger, before the anchor changes.

        Call with `lock` held. During an exchange nothing is added: the steps since the offer belong
        to the next anchor.

        Args:
            joining: The node has had no anchor of the run yet. No step may follow it to the first.
        """
        session = self._session
        if joining or not self.overlaps:
            await self._take_in(None)
        elif session.is_training and not session.exchanging:
            await self._take_in(session.lanes.present)

    async def begin_trajectory(self) -> None:
        """Train from the parameters of the settled ledger, after the anchor has changed.

        Call with `lock` held.
        """
        session = self._session
        session.exchanging = session.waiting = False
        if self.overlaps and session.is_training and not session.diverged:
            await session.shift()
        else:
            await self._begin_anew()
        await self._pause_if_held()

    async def _take_in(self, part: LanePart | None) -> None:
        """Add the work since the last hand-over to the ledger; `part` as for `take`."""
        session = self._session
        try:
            taken = await session.take(part)
        except TrainerLost:
            # The steps since the last offer are lost. The worker's supervisor reports its end.
            if part is not None:
                session.missing()
            return
        if taken is None:
            after = "are lost" if part is None else "are part of the next offer"
            late = (
                f"The worker did not end its step within {COLLECT_S:g} s."
                f" Its steps since the last offer {after}."
            )
            self._record(Warned(code="TRAINER", message=late))
        elif not await self._intake.add(*taken):
            session.diverged = True

    async def leave(self) -> None:
        """Add the work since the last offer to the ledger, for the offer after a restart."""
        self._intake.leave()
        async with self.lock:
            try:
                taken = await self._session.take(None)
                if taken is None:
                    raise TrainerLost(f"the worker did not end its step within {COLLECT_S:g} s")
                if await self._intake.add(*taken):
                    await self._session.keep_inner()
            except TrainerLost as lost:
                self._record(Warned(code="TRAINER", message=f"The last steps are lost: {lost}"))
