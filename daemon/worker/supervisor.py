"""The real Trainer: one worker process at a time, started again when it dies alone.

    down ──spawn──▶ starting ──Up──▶ up ──exit, hang──▶ down (wait 1 s, 2 s, ... 60 s) ──▶ starting ...
                       └──Unable, first time──▶ unable: a person has to mend something; `describe` raises it

A call made while the worker is starting for the first time waits. After a death every call but `describe` raises `TrainerLost`: until it is up
again, and `resume` and `collect` until it was given an anchor again, because what it had learned is gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import numpy as np
import trio

from daemon.children.messages import Done, frame
from daemon.worker.buffers import Buffers
from daemon.worker.messages import (
    Begin,
    Collect,
    Collected,
    Command,
    LoadInner,
    Noticed,
    Progressed,
    Refused,
    Report,
    Resume,
    SaveInner,
    Train,
    Unable,
    Up,
)
from daemon.worker.process import STDERR_GRACE_S, start_worker
from daemon.worker.settings import WorkerSettings, job_of
from daemon.worker.tasks.catalog import locate
from protocol.errors import OurFault, UserError
from protocol.identity import PeerId
from protocol.journal import Event, TrainerReady, TrainerStopped, TrainingProgress, Warned
from protocol.manifest import Manifest
from protocol.ports import Lane, Progress, TaskInfo, TrainerLost, Vector, Work

log = logging.getLogger("hypergpu.worker")

RECHECK_S = 2.0  # a node that was itself stopped past the limit finds the answer in its socket, but sees the clock first
NO_PROGRESS = Progress(steps=0, samples=0, loss=None, samples_per_second=0.0)
SEND_LIMIT_S = (
    10.0  # a command has a few hundred bytes and the socket's buffer 200 KB: only a worker that reads nothing for long refuses it
)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long the worker may stay silent, and how fast it is started again."""

    start_s: float = 600.0  # torch from a cold disk takes a minute, a large data set a few
    first_step_s: float = 300.0  # nothing is known yet; CUDA loads its kernels, a task may build an index
    answer_s: float = 30.0  # a command waits for one step's border; the rest is what a swapping or throttled machine may add
    answer_steps: float = 20.0  # times the longest step so far
    healthy_s: float = 60.0  # up for so long, the next death counts as the first again
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0  # a machine short of memory is not helped by a process that imports torch every second


class _Life:
    """One worker process from spawn to death, with the question it was asked last."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.process = start_worker(settings)
        self.buffers: Buffers | None = None  # set when it is up
        self.unable: UserError | None = None
        self.started = trio.Event()  # it is up, or it will never be
        self.up_since = 0.0
        self.longest_step_s = 0.0
        self.anchored = False
        self.taken = False  # whether the work of the last Collected reached our caller
        self.stretch = 0
        self.asked = 0
        self.answer: Report | None = None
        self.answered = trio.Event()  # also set by its death, with no answer
        self.answered.set()


class WorkerTrainer:
    """`protocol.ports.Trainer` over a worker process. `running()` starts and stops it; calls are made inside that block.

    A call that is cancelled leaves nothing half done: the work of a cancelled `collect` is part of the next one.
    """

    def __init__(
        self,
        manifest: Manifest,
        peer: PeerId,
        settings: WorkerSettings,
        on_event: Callable[[Event], None],
        *,
        patience: Patience | None = None,
    ) -> None:
        self._job = job_of(manifest, peer)
        self._settings = settings
        self._on_event = on_event
        self._patience = patience or Patience()
        self._life: _Life | None = None  # the one that is up
        self._info: TaskInfo | None = None
        self._unable: UserError | TrainerLost | None = None  # why none will come up any more
        self._lost = ""  # why the last one died; empty while none has
        self._restarts = 0
        self._progress = NO_PROGRESS
        self._turn = trio.Event()  # set and replaced whenever one comes up, dies, or cannot
        self._asking = trio.Lock()
        self._numbers = 0

    # ---------------------------------------------------------------------------------------- the port

    @property
    def restarts(self) -> int:
        return self._restarts

    def progress(self) -> Progress:
        return self._progress

    async def describe(self) -> TaskInfo:
        """Raises `UserError` when the task cannot be loaded on this machine, `TrainerLost` after the end of `running`."""
        while self._life is None or self._info is None:
            if self._unable is not None:
                raise self._unable
            await self._turn.wait()
        return self._info

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        def begin(life: _Life, number: int) -> Command:
            life.anchored, life.taken, life.stretch = True, False, number
            return Train(id=number, lane=lane, max_steps=max_steps)

        await self._ask(begin, put=(lambda buffers: buffers.anchor, anchor))

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        def go_on(life: _Life, number: int) -> Command:
            taken, life.taken, life.stretch = life.taken, False, number
            return Resume(id=number, lane=lane, max_steps=max_steps, taken=taken)

        await self._ask(go_on, after_anchor=True)

    async def collect(self) -> Work:
        def stop(life: _Life, number: int) -> Command:
            taken, life.taken = life.taken, False
            return Collect(id=number, taken=taken)

        life, answer = await self._ask(stop, after_anchor=True)
        if not isinstance(answer, Collected) or life.buffers is None:
            raise OurFault(f"the worker answered collect with {answer}")
        life.taken = True
        return Work(delta=life.buffers.delta, samples=answer.samples, steps=answer.steps, loss=answer.loss, seconds=answer.seconds)

    async def inner_state(self) -> Vector:
        life, _ = await self._ask(lambda _, number: SaveInner(id=number))
        buffers = life.buffers
        if buffers is None:
            raise OurFault("the worker answered before it was up")
        return await trio.to_thread.run_sync(buffers.inner.copy)

    async def restore_inner_state(self, state: Vector) -> None:
        await self._ask(lambda _, number: LoadInner(id=number), put=(lambda buffers: buffers.inner, state))

    # ---------------------------------------------------------------------------------------- one question at a time

    async def _ask(
        self,
        command: Callable[[_Life, int], Command],
        *,
        put: tuple[Callable[[Buffers], Vector], Vector] | None = None,
        after_anchor: bool = False,
    ) -> tuple[_Life, Report]:
        """Ask the worker that is up, writing a vector into the shared memory first where `put` says so."""
        async with self._asking:
            life = await self._up()
            if after_anchor and self._lost and not life.anchored:
                raise TrainerLost(self._lost)
            await self._answer(life)  # of a call that was cancelled: the worker may still be using the shared memory
            if put is not None and life.buffers is not None:
                target, value = put[0](life.buffers), put[1]
                if value.shape != target.shape:
                    raise ValueError(f"the worker takes a vector of shape {target.shape}, not {value.shape}")
                await trio.to_thread.run_sync(partial(np.copyto, target, value))  # hundreds of MB for a large model
            if self._life is not life:
                raise TrainerLost(self._lost)
            self._numbers += 1
            life.asked, life.answer, life.answered = self._numbers, None, trio.Event()
            message = command(life, self._numbers)
            self._progress = NO_PROGRESS if isinstance(message, Train | Resume) else self._progress
            # Shielded: half a frame would end the conversation. A worker that is dying is not an error here; its end sets `answered`.
            dying = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_LIMIT_S) as sending, dying:
                await life.process.send(frame(message))
            if sending.cancelled_caught:
                life.process.kill(f"it read nothing for {SEND_LIMIT_S:.0f} s")
            await self._answer(life)
            answer = life.answer
            if answer is None:
                raise TrainerLost(self._lost)
            if isinstance(answer, Refused):
                if answer.unfit:
                    raise ValueError(answer.why)
                # It lives, in another state than its caller takes it to be in. `train` brings it from any state to a known one.
                raise TrainerLost(f"the worker refused {type(message).__name__}: {answer.why}")
            return life, answer

    async def _up(self) -> _Life:
        while self._life is None:
            if self._unable is not None:
                raise self._unable
            if self._lost:
                raise TrainerLost(self._lost)
            await self._turn.wait()
        return self._life

    async def _answer(self, life: _Life) -> None:
        """Wait until the last question was answered, or its worker died of not answering."""
        patience, longest = self._patience, life.longest_step_s
        limit_s = patience.answer_s + patience.answer_steps * longest if longest else patience.first_step_s
        for last_s in (limit_s, RECHECK_S):
            with trio.move_on_after(last_s):
                await life.answered.wait()
        if not life.answered.is_set():
            life.process.kill(f"it gave no answer for {limit_s:.0f} s (its longest step took {longest:.1f} s)")
            await life.answered.wait()

    # ---------------------------------------------------------------------------------------- lives

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Spawns the worker and keeps one alive; on exit there is none. Raises `UserError` at once for a task that may not run here."""
        locate(self._job.task, self._settings)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._supervise)
                try:
                    yield
                finally:
                    self._unable = TrainerLost("the trainer was stopped")
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:  # an exception of the block comes out as it was, not in a group of one
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__

    async def _supervise(self) -> None:
        wait_s = self._patience.first_wait_s
        while True:
            up_s = 0.0
            try:
                life = _Life(self._settings)
            except OSError as error:  # no memory, no process, no descriptor to be had
                self._lost = f"it could not be started: {error}"
            else:
                up_s = await self._live(life)
                if life.unable is not None and self._info is None:
                    self._unable = life.unable
                    self._next_turn()
                    log.error("the worker cannot start: %s", life.unable)
                    return
            if up_s >= self._patience.healthy_s:
                wait_s = self._patience.first_wait_s
            self._restarts += 1
            self._on_event(TrainerStopped(reason=f"{self._lost}; trying again in {wait_s:.0f} s", restarts=self._restarts))
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._patience.longest_wait_s)

    async def _live(self, life: _Life) -> float:
        """One worker's whole life. Returns how long it was up, after it was reaped and `_lost` says why it ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.process.listen_to_errors)
                nursery.start_soon(self._watch_start, life)
                await self._converse(life)
                life.started.set()
                with trio.CancelScope(shield=True):
                    await life.process.ended()
                nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE_S
        finally:
            # Reached with the worker alive when `running` ends. It has nothing to save, so it is simply ended.
            with trio.CancelScope(shield=True):
                if not life.process.reaped:
                    life.process.kill("the node is stopping")
                    await life.process.ended()
                await life.process.close_errors()
            self._lost = life.unable.what if life.unable else life.process.why()
            self._life = None
            self._progress = NO_PROGRESS
            life.answered.set()
            self._next_turn()
        return trio.current_time() - life.up_since if life.up_since else 0.0

    async def _watch_start(self, life: _Life) -> None:
        with trio.move_on_after(self._patience.start_s):
            await life.started.wait()
            return
        life.process.kill(f"it was not up after {self._patience.start_s:.0f} s")

    async def _converse(self, life: _Life) -> None:
        begin = Begin(job=self._job, settings=self._settings)
        try:
            await life.process.send(frame(begin))
        except trio.BrokenResourceError:
            return
        async for report in life.process.reports():
            match report:
                case Up():
                    self._welcome(life, report)
                case Unable(code=code, what=what, why=why, fix=fix, exit_code=exit_code):
                    life.unable = UserError(code, what, why=why, fix=fix, exit_code=exit_code)
                case Progressed() if report.stretch == life.stretch:
                    self._follow(life, report)
                case Noticed(code=code, message=message):
                    self._on_event(Warned(code=code, message=message))
                case Done(id=number) | Refused(id=number) | Collected(id=number) if number == life.asked:
                    if isinstance(report, Collected):
                        life.longest_step_s = report.longest_step_s
                    life.answer = report
                    life.answered.set()
                case _:
                    log.debug("the worker said something late: %s", report)

    def _welcome(self, life: _Life, up: Up) -> None:
        if self._info is not None and up.info.specs != self._info.specs:
            life.process.kill("its model is not the one it had before; has the task's code changed?")
            return
        try:
            life.buffers = Buffers(life.process.memory_fd, up.info.parameters, up.inner)
        except (ValueError, OSError) as error:
            life.process.kill(f"its memory cannot be shared: {error}")
            return
        life.started.set()
        life.up_since = trio.current_time()
        self._life, self._info = life, up.info
        self._next_turn()
        self._on_event(TrainerReady(device=up.info.device, parameters=up.info.parameters, threads=up.info.threads))

    def _follow(self, life: _Life, report: Progressed) -> None:
        life.longest_step_s = report.longest_step_s
        self._progress = Progress(
            steps=report.steps, samples=report.samples, loss=report.loss, samples_per_second=report.samples_per_second
        )
        self._on_event(TrainingProgress(samples=report.samples, loss=report.loss, samples_per_second=report.samples_per_second))

    def _next_turn(self) -> None:
        self._turn.set()
        self._turn = trio.Event()
