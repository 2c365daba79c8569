"""Implements the port `Stage` with one process at a time, which is restarted when it dies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import numpy as np
import trio

from daemon.children.messages import ChildMessage, CommandDone
from daemon.device.process.stage_process import StageProcess, log
from daemon.device.stages.messages import (
    CloseCache,
    ComputeStep,
    LoadStage,
    OpenCache,
    StageRefused,
    StageReport,
    StepComputed,
)
from protocol.errors import OurFault
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import (
    MAX_CHUNK_TOKENS,
    Activations,
    CacheFull,
    Chunk,
    StageInfo,
    StageLost,
)

# The waits between restarts, as for the worker that trains.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
# A process that was up for this long begins with the first wait again.
STABLE_S = 300.0
# A chunk of 512 tokens through 80 layers of width 8,192 takes about this long on two slow cores.
# A process that needs longer is hung.
ANSWER_S = 300.0


class StageWorker:
    """Satisfies `Stage` inside the block of `running()`."""

    def __init__(
        self,
        begin: LoadStage,
        model: ModelManifest,
        *,
        spawn: Callable[[], StageProcess] | None = None,
    ) -> None:
        """Prepare a stage without starting its process.

        Args:
            begin: the layers to load, and from where.
            model: the model's manifest.
            spawn: makes a process; raises `OSError`.
        """
        self._begin, self._model = begin, model
        self._spawn = spawn or (lambda: StageProcess(begin.settings))
        self._process: StageProcess | None = None
        # Why there is no process.
        self._lost = ""
        self._unable: Exception | None = None
        self._changed = trio.Event()
        self._turn = trio.Lock()
        self._commands = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the process, and restart it when it dies. On exit no process is left."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._supervise)
                try:
                    yield
                finally:
                    self._unable = self._unable or StageLost("the stage was stopped")
                    self._announce()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # Raise a single exception of the block without its group.
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__

    # --------------------------------------------------------------------------------- the port

    async def describe(self) -> StageInfo:
        while (process := self._up()) is None or process.ready is None:
            if self._unable is not None:
                raise self._unable
            await self._changed.wait()
        ready = process.ready
        return StageInfo(
            layers=self._begin.layers,
            kernel=ready.kernel,
            device=ready.device,
            cache_tokens=self._begin.cache_tokens,
            layer_tokens_per_s=ready.layer_tokens_per_s,
        )

    async def open(self, generation: bytes, layers: LayerRange, cache_tokens: int) -> None:
        await self._ask(
            lambda number: OpenCache(
                id=number, generation=generation, layers=layers, cache_tokens=cache_tokens
            )
        )

    async def step(self, generation: bytes, position: int, chunk: Chunk) -> Activations:
        # The command carries tokens, and the shared memory has room for so many rows.
        if not 1 <= len(chunk) <= MAX_CHUNK_TOKENS:
            raise ValueError(f"a chunk of {len(chunk)} tokens")
        if chunk.dtype == np.int32 and chunk.ndim == 1:
            tokens, rows = tuple(map(int, chunk)), None
        elif chunk.dtype == np.float32 and chunk.shape[1:] == (self._model.width,):
            tokens, rows = (), chunk
        else:
            raise ValueError(f"a chunk of {chunk.dtype} with shape {chunk.shape}")
        process, answer = await self._ask(
            lambda number: ComputeStep(
                id=number,
                generation=generation,
                position=position,
                tokens=tokens,
                rows=0 if rows is None else len(rows),
            ),
            rows,
        )
        if not isinstance(answer, StepComputed):
            raise OurFault(f"a stage answered a step with {type(answer).__name__}")
        return process.taken(answer.rows, answer.columns)

    async def close(self, generation: bytes) -> None:
        # The caches of a process that is gone are gone with it.
        try:
            await self._ask(lambda number: CloseCache(id=number, generation=generation))
        except StageLost:
            return

    # ------------------------------------------------------------------------------- the process

    async def _supervise(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            began = trio.current_time()
            try:
                process = self._spawn()
            except OSError as error:
                # The system has no memory, process or descriptor to give.
                self._lost = f"its process could not be started: {error}"
                self._announce()
            else:
                if await self._serve(process):
                    return
            log.warning("The stage's process ended: %s", self._lost)
            if trio.current_time() - began > STABLE_S:
                wait_s = FIRST_WAIT_S
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _serve(self, process: StageProcess) -> bool:
        """Serve one process until it has ended. Returns whether a restart cannot help."""
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await process.run(self._begin, self._begin.settings.load_timeout_s)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            try:
                await process.started.wait()
                if process.ready is not None:
                    process.share(self._model.width, self._model.vocabulary)
                    self._process = process
                    self._announce()
                await trio.sleep_forever()
            except ValueError as error:
                process.child.kill(f"its memory cannot be shared: {error}")
                await trio.sleep_forever()
            finally:
                self._process = None
        self._lost = process.why()
        # What a first start cannot load, a later one cannot either.
        if process.unable is not None:
            self._unable = process.unable
        self._announce()
        return process.unable is not None

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _ask(
        self, command: Callable[[int], ChildMessage], rows: Activations | None = None
    ) -> tuple[StageProcess, StageReport]:
        """Send a command in its turn, and return the answer.

        Raises `StageLost`, `CacheFull` or `ValueError` for a refusal.
        """
        async with self._turn:
            process = await self._current()
            # The answer to a call that was cancelled may still come, into the shared memory.
            await self._answered(process)
            if rows is not None:
                process.put(rows)
            self._commands += 1
            await process.send(command(self._commands))
            await self._answered(process)
            answer = process.answer
            if answer is None:
                raise StageLost("the stage's process ended during the call")
            if isinstance(answer, StageRefused):
                _refuse(answer)
            if not isinstance(answer, StepComputed | CommandDone):
                raise OurFault(f"a stage answered with {type(answer).__name__}")
            return process, answer

    async def _current(self) -> StageProcess:
        """Return the process that is up. Waits for the first one, and for no later one.

        Raises `StageLost`, and `UserError` for weights that cannot be loaded.
        """
        while (process := self._up()) is None:
            if self._unable is not None:
                raise self._unable
            if self._lost or self._process is not None:
                raise StageLost(f"the stage's process is down: {self._lost or 'it has ended'}")
            await self._changed.wait()
        return process

    def _up(self) -> StageProcess | None:
        """Return the process that answers. The last lines of one that ended may still be read."""
        process = self._process
        return None if process is None or process.child.reaped else process

    async def _answered(self, process: StageProcess) -> None:
        with trio.move_on_after(ANSWER_S):
            await process.answered.wait()
            return
        process.child.kill(f"it gave no answer for {ANSWER_S:.0f} s")
        await process.answered.wait()


def _refuse(refused: StageRefused) -> NoReturn:
    match refused.reason:
        case "full":
            raise CacheFull(refused.why)
        case "unknown":
            raise StageLost(refused.why)
        case "wrong":
            raise ValueError(refused.why)
