"""Measures the time per token of a model in one stage and in several, in interleaved answers."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import msgspec
import trio

from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.demo.inference.served_swarm import ServedSwarm, ranges_of
from daemon.demo.inference.text_client import TextClient
from daemon.demo.progress_output import PlainOutput
from daemon.demo.stop_request import StopRequest, until_signalled
from daemon.results.served_model import open_served_model
from protocol.errors import UserError

PROMPT = "The history of the railway begins with"
# INFERENCE's bound for three stages on loopback.
LIMIT = 1.3


class TokenTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The median time between two tokens, in one stage and in several."""

    model: str
    stages: int
    tokens: int
    one_stage_ms: float
    stages_ms: float
    same_text: bool

    @property
    def ratio(self) -> float:
        return self.stages_ms / self.one_stage_ms

    @property
    def good(self) -> bool:
        """Whether the text is the same, and the time within the limit."""
        return self.same_text and self.ratio <= LIMIT


def measure_token_times(
    invocation: Invocation, *, model: str, stages: int, tokens: int, answers: int
) -> TokenTimes | None:
    """Start both swarms and measure; None after Ctrl-C. On return no process is left.

    Raises `UserError` where the model cannot be served.
    """
    root = Path(tempfile.mkdtemp(prefix="hypergpu-bench-"))
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(until_signalled())
            config, _ = load_config(root / "reader", None, {"worker.device": "cpu"}, {})
            local = trio.run(open_served_model, config, model, invocation.say)
            clients: list[TextClient] = []
            for number in (1, stages):
                home = root / f"stages-{number}"
                home.mkdir()
                ranges = ranges_of(local.manifest.layers, number)
                output = PlainOutput(invocation)
                swarm = ServedSwarm(home, str(local.source), ranges, output, holders=1)
                client = stack.enter_context(swarm).start(stop)
                if client is None:
                    return None
                clients.append(client)
            return _measured(clients, model, stages, tokens, answers, stop)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _measured(
    clients: list[TextClient],
    model: str,
    stages: int,
    tokens: int,
    answers: int,
    stop: StopRequest,
) -> TokenTimes | None:
    gaps_s: list[list[float]] = [[] for _ in clients]
    texts: set[str] = set()
    # The first answers connect the client with its stages, and are not counted.
    for number in range(answers + 1):
        for client, found in zip(clients, gaps_s, strict=True):
            if stop.is_set():
                return None
            text, times_s = _answer(client, tokens)
            texts.add(text)
            if number:
                found.extend(times_s)
    one, several = (1000 * statistics.median(found) for found in gaps_s)
    return TokenTimes(
        model=model,
        stages=stages,
        tokens=tokens,
        one_stage_ms=one,
        stages_ms=several,
        same_text=len(texts) == 1,
    )


def _answer(client: TextClient, tokens: int) -> tuple[str, list[float]]:
    """Return the likeliest text, and the times between its pieces in seconds."""
    seen_s: list[float] = []
    request: dict[str, object] = {
        "model": client.models()[0],
        "prompt": PROMPT,
        "max_tokens": tokens,
        "temperature": 0,
    }
    answer = client.answer(request, lambda _number: seen_s.append(time.monotonic()))
    gaps_s = [later - earlier for earlier, later in pairwise(seen_s)]
    if not gaps_s:
        raise UserError(
            "BENCH", "The answer has too few pieces to measure.", fix="ask for more --tokens"
        )
    return answer.text, gaps_s
