"""Makes the answers that the web thread asks for, with the generations of an inference client."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import trio

from daemon.api.answer_queue import AnswerFailed, AnswerQueue
from daemon.api.api_replies import AnswerEnd
from daemon.api.api_requests import BadRequest, TextRequest
from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError
from protocol.generation.text_pieces import TextPieces
from protocol.inference.model import ModelManifest
from protocol.ports.stage import Tokenizer

# The generations that are open at once. Each holds a cache in every stage.
MAX_OPEN = 50
# The errors of a generation that a later try may not meet.
_STATUS = {"STAGES_FULL": 429, "NO_STAGE": 503, "STAGE_SLOW": 503, "PROMPT": 400}


class TokenSource(Protocol):
    """A generation: `daemon.services.inference.generation.Generation`, or one in a test."""

    @property
    def finish(self) -> Literal["", "stop", "length"]: ...

    @property
    def exact(self) -> bool: ...

    @property
    def replays(self) -> int: ...

    async def next_token(self) -> int | None: ...


Generate = Callable[[TextRequest], AbstractAsyncContextManager[TokenSource]]


class Answers:
    """The answers that are being made. Made on trio's side, inside trio."""

    def __init__(
        self,
        generate: Generate,
        model: ModelManifest,
        tokenizer: Tokenizer,
        max_open: int = MAX_OPEN,
    ) -> None:
        """`generate` returns a generation; it may raise `UserError`, at once or later."""
        self._generate, self.max_open = generate, max_open
        self.model, self.tokenizer = model, tokenizer
        self._trio_token = trio.lowlevel.current_trio_token()
        self._send, self._receive = trio.open_memory_channel[AnswerQueue](math.inf)
        # Belongs to the web thread.
        self._open = 0

    def begin(self, request: TextRequest) -> AnswerQueue:
        """Begin an answer. Called in the web thread.

        Raises `BadRequest` with status 429 while `max_open` answers are being made, and 503 while
        this process ends.
        """
        if self._open >= self.max_open:
            raise BadRequest(
                f"{self._open} answers are being made, and no more are made at once. Try again"
                " later.",
                status=429,
                code="too_many_generations",
            )
        answer = AnswerQueue(request, self._trio_token)
        try:
            self._trio_token.run_sync_soon(self._submit, answer)
        except trio.RunFinishedError:
            raise BadRequest("This server is ending.", status=503) from None
        self._open += 1
        return answer

    def _submit(self, answer: AnswerQueue) -> None:
        """Let `run` make the answer. Called in trio's thread."""
        try:
            self._send.send_nowait(answer)
        except trio.BrokenResourceError:
            # `run` has ended.
            answer.put(AnswerFailed(status=503, code="ENDING", message="This server is ending."))
            answer.run_in_web_thread(self._ended)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make answers until cancelled."""
        async with trio.open_nursery() as nursery, self._receive:
            task_status.started()
            async for answer in self._receive:
                nursery.start_soon(self._make, answer)

    async def _make(self, answer: AnswerQueue) -> None:
        try:
            with answer.scope:
                await self._tokens(answer)
        except UserError as error:
            message = ". ".join(part.rstrip(".") for part in (error.what, error.why) if part)
            status = _STATUS.get(error.code, 500)
            answer.put(AnswerFailed(status=status, code=error.code, message=f"{message}."))
        finally:
            # The caches are free now.
            answer.run_in_web_thread(self._ended)

    async def _tokens(self, answer: AnswerQueue) -> None:
        request = answer.request
        pieces, made = TextPieces(self.tokenizer.decode, request.stops), 0
        async with self._generate(request) as generation:
            while not pieces.stopped and (token := await generation.next_token()) is not None:
                made += 1
                if piece := pieces.add(token):
                    answer.put(piece)
            if rest := pieces.rest():
                answer.put(rest)
            finish: Literal["stop", "length"] = (
                "stop" if pieces.stopped or generation.finish == "stop" else "length"
            )
            end = AnswerEnd(
                finish=finish, tokens=made, exact=generation.exact, replays=generation.replays
            )
        # After the caches are free: who asks again at once finds room.
        answer.put(end)

    def _ended(self) -> None:
        self._open -= 1
