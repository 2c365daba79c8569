"""Fifty answers at once over a real stage: more get 429, and clients that vanish leave no cache."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import trio

from daemon.api.answers import MAX_OPEN, Answers
from daemon.api.api_server import api_server
from daemon.config.settings import Config, NetworkConfig, WorkerConfig
from daemon.control.client import call
from daemon.demo.process import Lifeline
from daemon.node.api_node import Generations
from daemon.node.model_client import joined_model
from daemon.node.stage_report import StageReport
from tests.daemon.device.stages.run_models import OPTIONS, write_byte_gpt
from tests.e2e.inference.stage_swarm import StageDaemon
from tests.e2e.processes import until

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(600)]

KEY, REFUSED = "hgpu-test", 100
# No answer ends before its client has gone.
PROMPT, TOKENS = "def f(", 1000
MODEL = msgspec.structs.replace(OPTIONS, context=1024)
# Room for as many generations as are open at once, and for no more.
CACHE_TOKENS = MAX_OPEN * (len(PROMPT) + TOKENS - 1)


def test_vanished_clients_of_fifty_answers_leave_no_cache(tmp_path: Path) -> None:
    model = tmp_path / "gpt.safetensors"
    write_byte_gpt(model, options=MODEL)
    lifeline = Lifeline()
    stage = StageDaemon(
        tmp_path / "stage", str(model), "0:3", lifeline, "--cache-tokens", str(CACHE_TOKENS)
    )
    try:
        stage.start()
        trio.run(ask_and_vanish, tmp_path, stage, stage.wait_ready())
    finally:
        print(stage.log()[-2000:])
        stage.end()
        lifeline.close()


async def ask_and_vanish(root: Path, stage: StageDaemon, address: str) -> None:
    config = Config(
        home=root / "client",
        network=NetworkConfig(listen_host="127.0.0.1", join=(address,)),
        worker=WorkerConfig(device="cpu"),
    )
    config.home.mkdir()

    def refuse(reason: str, peer: str, detail: str) -> None:
        raise AssertionError(f"{peer} was refused ({reason}): {detail}")

    async with joined_model(config, "", refuse) as joined:
        begin = Generations(joined, print, audit=False).begin
        answers = Answers(begin, joined.manifest, joined.tokenizer)
        async with api_server(answers, KEY, host="127.0.0.1", port=0) as bound:
            await trio.to_thread.run_sync(vanish_twice, bound.url, stage)


def vanish_twice(url: str, stage: StageDaemon) -> None:
    for _ in range(2):
        with ExitStack() as stack:
            fill(stack, url)
            # A stage that stands still keeps all answers open, and hears of no close.
            stage.stop_signal(signal.SIGSTOP)
            try:
                for _ in range(REFUSED):
                    with ask(url) as refused:
                        assert status_of(refused) == 429
                stack.close()
            finally:
                stage.stop_signal(signal.SIGCONT)
        until(lambda: open_generations(stage) == 0, "the stage holds no generation", 60)
    # All of the cache is free: fifty generations fit again.
    with ExitStack() as stack:
        fill(stack, url)


def fill(stack: ExitStack, url: str) -> None:
    """Open as many answers as are made at once.

    A client that asks right after others have gone gets 429 until the stage has announced its room.
    """
    opened = 0

    def filled() -> bool:
        nonlocal opened
        made = [ask(url) for _ in range(MAX_OPEN - opened)]
        for one in made:
            # The head of a stream comes with its first token.
            if status_of(one) == 200:
                stack.enter_context(one)
                opened += 1
            else:
                one.close()
        return opened == MAX_OPEN

    until(filled, f"{MAX_OPEN} answers are open at once", 120)


def open_generations(stage: StageDaemon) -> int:
    return msgspec.json.decode(call(stage.home, "stage"), type=StageReport).generations


def ask(url: str) -> socket.socket:
    """Send a request for a stream, and do not wait for the reply."""
    place = urlsplit(url)
    body = json.dumps(
        {"model": "gpt", "prompt": PROMPT, "max_tokens": TOKENS, "stream": True, "seed": 1}
    ).encode()
    head = (
        f"POST {place.path}/completions HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    made = socket.create_connection((str(place.hostname), int(place.port or 0)), 60)
    made.sendall(head + body)
    return made


def status_of(connection: socket.socket) -> int:
    """The status of the reply."""
    got, deadline = b"", time.monotonic() + 60
    while b"\r\n" not in got and time.monotonic() < deadline:
        part = connection.recv(1 << 12)
        assert part, "the connection was closed"
        got += part
    return int(got.split()[1])
