"""Carries one answer from trio's thread to the web thread, and its cancellation back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio

from daemon.api.api_replies import AnswerEnd
from daemon.api.api_requests import TextRequest


class AnswerFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer ends with an error. `status` is of HTTP."""

    status: int
    code: str
    message: str


AnswerEvent = str | AnswerEnd | AnswerFailed
"""A piece of the text, or the end."""


class AnswerQueue:
    """One answer under way. It is made in the web thread, by its loop.

    The queue holds at most the pieces of one answer: a text of the model's context.
    """

    def __init__(self, request: TextRequest, trio_token: trio.lowlevel.TrioToken) -> None:
        self.request = request
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[AnswerEvent] = asyncio.Queue()
        self._trio_token = trio_token
        # Belongs to trio's thread.
        self.scope = trio.CancelScope()

    # ------------------------------------------------------------------------ from trio's thread

    def put(self, event: AnswerEvent) -> None:
        """Give an event to the web thread."""
        self.run_in_web_thread(lambda: self._events.put_nowait(event))

    def run_in_web_thread(self, act: Callable[[], None]) -> None:
        """Let the web thread call `act`. Nothing happens where that thread has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act)

    # ------------------------------------------------------------------------ in the web thread

    async def next_event(self, timeout_s: float) -> AnswerEvent | None:
        """Wait for the next event; None where none came in time."""
        try:
            return await asyncio.wait_for(self._events.get(), timeout_s)
        except TimeoutError:
            return None

    def cancel(self) -> None:
        """Let trio's thread end the answer. Safe to call at its end and after it."""
        with suppress(trio.RunFinishedError):
            self._trio_token.run_sync_soon(self.scope.cancel)
