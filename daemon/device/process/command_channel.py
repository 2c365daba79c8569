"""Sends commands to the current worker, one at a time, and waits for the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import trio

from daemon.children.messages import frame
from daemon.device.messages import (
    CommandRefused,
    ContinueTraining,
    EvaluateModel,
    EvaluationUnable,
    LoadInnerState,
    MeasureGroups,
    ShiftAnchor,
    TrainFromAnchor,
    WorkerCommand,
    WorkerReport,
)
from daemon.device.process.restart_policy import WorkerTimeouts
from daemon.device.process.supervisor import NO_PROGRESS, WorkerSupervisor
from daemon.device.process.worker_process import WorkerProcess
from daemon.device.shared_memory import SharedMemory, free_pages
from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import HeldOutShare, TrainerLost

# A node that was stopped for longer than the limit sees the clock before the answer in its socket.
RECHECK_S = 2.0
# A command has a few hundred bytes, and the socket's buffer 200 KB. Only a worker that reads
# nothing for long lets a send wait.
SEND_LIMIT_S = 10.0
# The groups of samples that are measured between two steps: of 32 samples each, they cost about as
# much as 5 steps of a batch of 8.
GROUPS_AT_ONCE = 4


class CommandChannel:
    """The commands of one node to its workers.

    A cancelled call leaves nothing half done: the next one waits for its answer first.
    """

    def __init__(self, supervisor: WorkerSupervisor, timeouts: WorkerTimeouts) -> None:
        self._supervisor, self._timeouts = supervisor, timeouts
        self._asking = trio.Lock()
        self._evaluating = trio.Lock()
        self._numbers = 0

    async def ask(
        self,
        command: Callable[[WorkerProcess, int], WorkerCommand],
        *,
        put: tuple[Callable[[SharedMemory], Vector], Vector] | None = None,
        after_anchor: bool = False,
    ) -> tuple[WorkerProcess, WorkerReport]:
        """Send a command to the current worker, and wait for the answer.

        `put` names a vector of the shared memory, and the value to write there first. The worker
        has used the vector when it answers, unless the command scores it.
        """
        async with self._asking:
            worker = await self._up()
            if after_anchor and self._supervisor.lost and not worker.anchored:
                raise TrainerLost(self._supervisor.lost)
            # The worker may still use the shared memory for the command of a cancelled call.
            await self._answer(worker)
            if put is not None and worker.buffers is not None:
                target, value = put[0](worker.buffers), put[1]
                if value.shape != target.shape:
                    raise ValueError(
                        f"the worker takes a vector of shape {target.shape}, not {value.shape}"
                    )
                # The vector of a large model has hundreds of MB.
                await trio.to_thread.run_sync(partial(np.copyto, target, value))
            if self._supervisor.current is not worker:
                raise TrainerLost(self._supervisor.lost)
            self._numbers += 1
            worker.asked, worker.answer, worker.answered = self._numbers, None, trio.Event()
            message = command(worker, self._numbers)
            self._supervisor.progress = (
                NO_PROGRESS
                if isinstance(message, TrainFromAnchor | ContinueTraining | ShiftAnchor)
                else self._supervisor.progress
            )
            # Shielded, because half a frame would break the connection. A worker that ends now is
            # no error here: its end sets `answered`.
            dying = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
            with (
                trio.CancelScope(
                    shield=True, deadline=trio.current_time() + SEND_LIMIT_S
                ) as sending,
                dying,
            ):
                await worker.process.send(frame(message))
            if sending.cancelled_caught:
                worker.process.kill(f"it read nothing for {SEND_LIMIT_S:.0f} s")
            await self._answer(worker)
            answer = worker.answer
            if answer is None:
                raise TrainerLost(self._supervisor.lost)
            if isinstance(answer, CommandRefused):
                if answer.unfit:
                    raise ValueError(answer.why)
                # The worker is in another state than the caller expects. `train` brings it from any
                # state to a known one.
                raise TrainerLost(f"the worker refused {type(message).__name__}: {answer.why}")
            used_up = isinstance(message, TrainFromAnchor | ShiftAnchor | LoadInnerState)
            if put is not None and used_up:
                await self._free(worker, put[0])
            return worker, answer

    async def release(
        self, worker: WorkerProcess, vector: Callable[[SharedMemory], Vector]
    ) -> None:
        """Free the memory of a shared vector that neither process needs any more."""
        async with self._asking:
            await self._answer(worker)
            await self._free(worker, vector)

    async def _free(self, worker: WorkerProcess, vector: Callable[[SharedMemory], Vector]) -> None:
        if worker.buffers is not None:
            await trio.to_thread.run_sync(free_pages, vector(worker.buffers))

    async def _up(self) -> WorkerProcess:
        while self._supervisor.current is None:
            if self._supervisor.unable is not None:
                raise self._supervisor.unable
            if self._supervisor.lost:
                raise TrainerLost(self._supervisor.lost)
            await self._supervisor.changed.wait()
        return self._supervisor.current

    def _limit_s(self, worker: WorkerProcess) -> float:
        """How long one step may take."""
        timeouts, longest_s = self._timeouts, worker.longest_step_s
        if not longest_s:
            return timeouts.first_step_s
        limit_s = timeouts.answer_s + timeouts.answer_steps * longest_s
        # An evaluation comes between two steps.
        return limit_s if worker.evaluation_ended.is_set() else limit_s + timeouts.evaluate_s

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> WorkerReport:
        """Ask for an evaluation, and wait for its result. Other commands do not wait for it."""
        async with self._evaluating:
            worker, report = await self._score(
                lambda number: EvaluateModel(id=number, share=share), parameters
            )
            await self._free(worker, lambda buffers: buffers.scored)
            return report

    async def measure(
        self, parameters: Vector, groups: Sequence[tuple[int, ...]]
    ) -> list[WorkerReport]:
        """Ask for the losses of groups, a few at a time: steps are made in between.

        Returns one report for each `GROUPS_AT_ONCE` groups, or ends with the first failure.
        """
        reports: list[WorkerReport] = []
        async with self._evaluating:
            first: WorkerProcess | None = None
            for at in range(0, len(groups), GROUPS_AT_ONCE):
                part = tuple(groups[at : at + GROUPS_AT_ONCE])
                worker, report = await self._score(
                    lambda number, part=part: MeasureGroups(id=number, groups=part),  # type: ignore[misc]
                    None if first else parameters,
                )
                if first not in (None, worker):
                    # Another worker has other parameters in its memory.
                    raise TrainerLost(self._supervisor.lost)
                first = worker
                reports.append(report)
                if isinstance(report, EvaluationUnable):
                    break
            if first is not None:
                await self._free(first, lambda buffers: buffers.scored)
        return reports

    async def _score(
        self, command: Callable[[int], WorkerCommand], parameters: Vector | None
    ) -> tuple[WorkerProcess, WorkerReport]:
        """Let the current worker score the shared parameters. The caller holds `_evaluating`.

        `parameters` are written there first; None leaves them.
        """
        # The evaluation of a cancelled call still uses the shared parameters.
        if self._supervisor.current is not None:
            await self._evaluation(self._supervisor.current)

        def begin(worker: WorkerProcess, number: int) -> WorkerCommand:
            worker.evaluation, worker.evaluated = number, None
            worker.evaluation_ended = trio.Event()
            return command(number)

        put = None if parameters is None else ((lambda buffers: buffers.scored), parameters)
        worker, _ = await self.ask(begin, put=put)
        await self._evaluation(worker)
        if worker.evaluated is None:
            raise TrainerLost(self._supervisor.lost)
        return worker, worker.evaluated

    async def _evaluation(self, worker: WorkerProcess) -> None:
        """Wait for the end of an evaluation. Kill a worker that is too slow."""
        with trio.move_on_after(self._timeouts.evaluate_s):
            await worker.evaluation_ended.wait()
        if not worker.evaluation_ended.is_set():
            worker.process.kill(f"its evaluation did not end in {self._timeouts.evaluate_s:.0f} s")
            await worker.evaluation_ended.wait()

    def check_step(self, worker: WorkerProcess, step_s: float) -> None:
        """Kill a worker whose step in progress does not end. A hand-over does not wait for it."""
        if step_s > (limit_s := self._limit_s(worker)):
            worker.process.kill(
                f"its step did not end for {step_s:.0f} s, and {limit_s:.0f} s are allowed (its"
                f" longest step took {worker.longest_step_s:.1f} s)"
            )

    async def _answer(self, worker: WorkerProcess) -> None:
        """Wait until the worker has answered its last command. Kill a worker that is too slow."""
        limit_s = self._limit_s(worker)
        for last_s in (limit_s, RECHECK_S):
            with trio.move_on_after(last_s):
                await worker.answered.wait()
        if not worker.answered.is_set():
            worker.process.kill(
                f"it gave no answer for {limit_s:.0f} s (its longest step took"
                f" {worker.longest_step_s:.1f} s)"
            )
            await worker.answered.wait()
