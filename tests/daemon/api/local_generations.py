"""Generations with one stage that holds the whole model, and a server for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import numpy as np
import openai
import trio

from daemon.api.answers import Answers, TokenSource
from daemon.api.api_requests import TextRequest
from daemon.api.api_server import api_server
from daemon.models.text_tokens import ByteTokenizer
from protocol.errors import UserError
from protocol.generation.sampler import choose_token
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import CacheFull, Stage, Tokenizer

KEY = "hgpu-test"


class LocalGeneration:
    """Satisfies `TokenSource` with one stage."""

    def __init__(self, stage: Stage, name: bytes, request: TextRequest, ends: frozenset[int]):
        self._stage, self._name, self._request, self._ends = stage, name, request, ends
        self._position = 0
        self._made: list[int] = []
        self.finish: Literal["", "stop", "length"] = ""
        self.exact, self.replays = True, 0

    async def next_token(self) -> int | None:
        if self.finish:
            return None
        given = self._made[-1:] or self._request.prompt
        chunk = np.array(given, np.int32)
        logits = (await self._stage.step(self._name, self._position, chunk))[0]
        self._position += len(chunk)
        token = choose_token(logits, self._request.rules, len(self._made))
        if token in self._ends:
            self.finish = "stop"
            return None
        self._made.append(token)
        if len(self._made) == self._request.max_tokens:
            self.finish = "length"
        return token


class LocalGenerations:
    """Makes generations; `open` counts those whose caches are held."""

    def __init__(self, stage: Stage, model: ModelManifest) -> None:
        self._stage, self._model = stage, model
        self.open = self.begun = 0

    @asynccontextmanager
    async def __call__(self, request: TextRequest) -> AsyncIterator[TokenSource]:
        self.begun += 1
        name = self.begun.to_bytes(8, "little")
        room = min(self._model.context, len(request.prompt) + request.max_tokens)
        whole = LayerRange(first=0, stop=self._model.layers)
        try:
            await self._stage.open(name, whole, room)
        except CacheFull as full:
            raise UserError("STAGES_FULL", "No stage has room.", why=str(full)) from None
        self.open += 1
        try:
            yield LocalGeneration(self._stage, name, request, frozenset(self._model.end_tokens))
        finally:
            with trio.CancelScope(shield=True):
                await self._stage.close(name)
            self.open -= 1


@asynccontextmanager
async def served(
    generate: Callable[[TextRequest], Any],
    model: ModelManifest,
    tokenizer: Tokenizer | None = None,
    max_open: int = 50,
) -> AsyncIterator[str]:
    """Serve the API on a free port of loopback. Yields the base URL."""
    answers = Answers(generate, model, tokenizer or ByteTokenizer(), max_open)
    async with api_server(answers, KEY, host="127.0.0.1", port=0) as address:
        yield address.url


def client(url: str, **options: Any) -> openai.OpenAI:
    """The official client. It does not try again, so that a refusal is seen."""
    return openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=30, **options)


async def calling(work: Callable[[], Any]) -> Any:
    """Run blocking calls of a client in a thread."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
