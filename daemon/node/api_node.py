"""The composition root of `hypergpud api`: a light node that answers OpenAI's protocol."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from daemon.api.access_key import KEY_FILE, load_or_make_key
from daemon.api.answers import Answers
from daemon.api.api_requests import TextRequest
from daemon.api.api_server import api_server
from daemon.config.settings import Config
from daemon.node.model_client import JoinedModel, joined_model
from daemon.node.shutdown import ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.services.inference.event_text import describe_event
from daemon.services.inference.generation import (
    Generation,
    GenerationOptions,
    GenerationRequest,
)
from daemon.system.allocator import trim_memory
from protocol.digest import SHOWN_DIGITS
from protocol.identity import PeerId
from protocol.inference.recovery_events import GenerationEvent

AUDIT_S = 30.0
"""The longest time that an answer's end waits for its audit: a holder may hang."""

_log = logging.getLogger(__name__)


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks the API to be."""

    # The model's name, or the beginning of its id; "" where the stages serve one model.
    model: str
    host: str
    port: int
    max_open: int
    # Whether the stages of every answer are audited at its end.
    audit: bool


async def run(
    config: Config, settings: ApiSettings, lifeline: int | None, say: Callable[[str], None]
) -> int:
    """Answer requests until asked to stop. Returns the exit status."""
    shutdown = Shutdown()
    with trio.CancelScope() as scope, ForcedExit(shutdown, scope.cancel) as leave_now:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, shutdown, leave_now)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, shutdown, lifeline, leave_now)
            nursery.start_soon(trim_memory)
            nursery.start_soon(_answer, config, settings, say)
            await shutdown.wait()
            leave_now()
    say(f"Stopped: {shutdown.reason}.")
    return shutdown.exit_code


async def _answer(config: Config, settings: ApiSettings, say: Callable[[str], None]) -> None:
    key = load_or_make_key(config.home)
    say("Asking the stages which model they serve.")
    async with joined_model(config, settings.model, _refuse) as joined:
        answers = Answers(
            Generations(joined, say, audit=settings.audit).begin,
            joined.manifest,
            joined.tokenizer,
            settings.max_open,
        )
        async with api_server(answers, key, host=settings.host, port=settings.port) as bound:
            shown = joined.model.hex()[:SHOWN_DIGITS]
            say(f"Ready: {joined.manifest.name} ({shown}) at {bound.url}")
            say(f"The key is in {config.home / KEY_FILE}")
            if not _is_loopback(bound.host):
                say(
                    f"Anyone who reaches {bound.host} can read the key and the texts on the way:"
                    " put a proxy with TLS in front."
                )
            await trio.sleep_forever()


class Generations:
    """Makes the generations of requests, and tells what happens to them."""

    def __init__(self, joined: JoinedModel, say: Callable[[str], None], *, audit: bool) -> None:
        self._joined, self._say, self._audit = joined, say, audit

    @asynccontextmanager
    async def begin(self, request: TextRequest) -> AsyncIterator[Generation]:
        """Yield a generation that has not begun; audit it at the end. Raises `UserError`."""
        wanted = GenerationRequest(
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            rules=request.rules,
            end_tokens=frozenset(self._joined.manifest.end_tokens),
        )
        options = GenerationOptions(audit_share=1.0 if self._audit else 0.0)
        async with self._joined.client.generation(wanted, options, self._report) as generation:
            yield generation
            with trio.move_on_after(AUDIT_S) as audited:
                await generation.audit()
            if audited.cancelled_caught:
                self._say(f"An audit was given up after {AUDIT_S:.0f} s. No stage was judged.")

    def _report(self, event: GenerationEvent) -> None:
        self._say(describe_event(event))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(reason: str, peer: PeerId, detail: str) -> None:
    _log.warning("refused (%s) from %s: %s", reason, peer, detail)
