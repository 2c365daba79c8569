"""Runs the rounds of a hivemind run: collect the work, find a group, average, decide, train on."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.services.service import ServiceContext
from daemon.services.training.hivemind import policy
from daemon.services.training.hivemind.messages import AverageVector, MemberInfo, VectorAveraged
from daemon.services.training.hivemind.process import (
    HivemindLost,
    HivemindProcess,
    failure_reason,
)
from daemon.services.training.hivemind.state_exchange import StateExchange
from daemon.services.training.hivemind.trainer_driver import TrainerDriver
from protocol.identity import PeerId
from protocol.journal import Alone, Contributor, RoundAveraged


class RoundRunner:
    """Runs one round at a time, from the end of training to its new start."""

    def __init__(
        self,
        context: ServiceContext,
        process: HivemindProcess,
        driver: TrainerDriver,
        exchange: StateExchange,
        enter: Callable[[str, str], None],
    ) -> None:
        """`enter` announces a phase and the reason for it."""
        self._manifest = context.manifest.open()
        self._me, self._record = context.signer.peer, context.record
        self._settings = policy.averager_settings(context.manifest.run, self._manifest)
        self._process, self._driver, self._exchange = process, driver, exchange
        self._state = driver.state
        self._enter = enter

    async def run(self, others: frozenset[PeerId], finish: trio.Event) -> None:
        """Run the round that ends now with `others`, the other live members.

        Returns early when `finish` is set.
        """
        work = await self._driver.collect()
        if work is None:
            return
        state, number = self._state, self._state.number + 1
        if len(others) + 1 < self._manifest.group.min_peers:
            self._record(
                Alone(
                    number=number,
                    samples_pending=state.samples,
                    reason="no other member of this run is alive",
                )
            )
            await self._exchange.save_pending()
            await self._train_on(others)
            return
        if not state.samples:
            await self._train_on(others)
            return
        target = policy.choose_group(len(others) + 1, self._manifest.group.max_group)
        self._enter("ready", target.reason)
        mine = MemberInfo(
            peer=self._me,
            number=state.number,
            samples=state.samples,
            loss=work.loss,
            sketch=policy.sketch_of(state.anchor),
        )
        answer = await self._average(mine, target.size, finish)
        if finish.is_set():
            return
        if isinstance(answer, str):
            self._record_round(number, "failed", (), answer, {})
            await self._train_on(others)
            return
        await self._conclude(mine, answer, others)
        await self._exchange.save()

    async def _average(
        self, mine: MemberInfo, group_size: int, finish: trio.Event
    ) -> VectorAveraged | str:
        """Return the result, or why there is none. Returns early when `finish` is set."""
        process, state = self._process, self._state
        answer: VectorAveraged | str = "the node is stopping"

        async def ask(scope: trio.CancelScope) -> None:
            nonlocal answer
            process.vector[:] = state.pending
            try:
                report = await process.ask(
                    lambda number: AverageVector(
                        id=number,
                        weight=float(state.samples),
                        group_size=group_size,
                        find_s=policy.find_s(self._settings),
                        info=mine,
                    )
                )
                answer = report if isinstance(report, VectorAveraged) else failure_reason(report)
            except HivemindLost as lost:
                answer = f"the hivemind process ended: {lost}"
            scope.cancel()

        if not process.is_up:
            return "the hivemind process is not running"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            await finish.wait()
            nursery.cancel_scope.cancel()
        return answer

    async def _conclude(
        self, mine: MemberInfo, averaged: VectorAveraged, others: frozenset[PeerId]
    ) -> None:
        """Apply the mean, keep the work, or download the majority's state; then train on."""
        number = self._state.number + 1
        seconds = {"ready": averaged.matchmaking_s, "reduce": averaged.all_reduce_s}
        decision = policy.decide_round(averaged, mine)
        if decision.action == "apply":
            try:
                await self._state.apply(self._process.vector)
            except ValueError as unfit:
                decision = policy.RoundDecision(action="keep", reason=str(unfit))
        if decision.action == "apply":
            self._record_round(number, "averaged", averaged.members, decision.reason, seconds)
            await self._exchange.share()
            self._enter("train", f"round {number} is averaged, not certified")
            await self._driver.train(others)
        elif decision.action == "keep":
            self._record_round(number, "partial", averaged.members, decision.reason, seconds)
            await self._train_on(others)
        else:
            self._record_round(number, "apart", averaged.members, decision.reason, seconds)
            if await self._exchange.catch_up():
                await self._driver.train(others)
            else:
                await self._train_on(others)

    async def _train_on(self, others: frozenset[PeerId]) -> None:
        """Train on from the local parameters; the pending work waits for the next round."""
        self._enter("train", f"{self._state.samples} samples wait for the next round")
        await self._driver.resume(others)

    def _record_round(
        self,
        number: int,
        outcome: str,
        members: tuple[MemberInfo, ...],
        reason: str,
        seconds: dict[str, float],
    ) -> None:
        samples = sum(member.samples for member in members)
        losses = [(member.loss, member.samples) for member in members if member.loss is not None]
        weight = sum(samples for _, samples in losses)
        self._record(
            RoundAveraged(
                number=number,
                outcome=outcome,
                shares=tuple(
                    Contributor(peer=member.peer, samples=member.samples, loss=member.loss)
                    for member in members
                ),
                samples=samples,
                loss=sum(loss * samples for loss, samples in losses) / weight if weight else None,
                phase_seconds=seconds,
                reason=reason,
            )
        )
