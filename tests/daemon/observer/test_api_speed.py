"""How fast the API answers many clients, and how soon a certificate reaches them."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.alone]
CLIENTS = 200
# Each client asks like a page and a script together.
ASK_EVERY_S = 0.5
READ_S = 10.0
STREAMS = 1000
PATHS = ("/api/v1/status", "/api/v1/run", "/api/v1/rounds", "/api/v1/peers?limit=50", "/api/nodes")
READ_P95_S, EVENT_P95_S = 0.020, 0.050


@contextmanager
def page_process(events_per_s: float) -> Iterator[str]:
    """Run the web side in a process of its own; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.daemon.observer.page_process", str(events_per_s)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * len(times))]


async def read_often(url: str, seed: int, took: list[float]) -> None:
    """Ask over one connection, with the cheapest client there is."""
    parts, choose = urlsplit(url), random.Random(seed)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await asyncio.sleep(choose.uniform(0, ASK_EVERY_S))
    end = time.monotonic() + READ_S
    while time.monotonic() < end:
        path = choose.choice(PATHS)
        began = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        (length,) = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        await asyncio.sleep(choose.uniform(0.5, 1.5) * ASK_EVERY_S)
    writer.close()


def test_api_answers_two_hundred_clients_at_once_within_20_ms() -> None:
    async def story(url: str) -> list[float]:
        took: list[float] = []
        async with asyncio.TaskGroup() as clients:
            for seed in range(CLIENTS):
                clients.create_task(read_often(url, seed, took))
        return took

    with page_process(1.0) as url:
        took = asyncio.run(story(url))
    print(f"{len(took)} reads of {CLIENTS} clients: p95 {1000 * p95(took):.1f} ms, none failed")
    assert p95(took) < READ_P95_S


async def hear_stream(session: aiohttp.ClientSession, url: str, took: list[float]) -> None:
    headers = {"Accept": "text/event-stream"}
    async with session.get(f"{url}api/v1/events", headers=headers) as answer:
        async for raw in answer.content:
            if raw.startswith(b"data: "):
                took.append(time.time() - float(json.loads(raw[6:])["text"]))


async def hear_socket(session: aiohttp.ClientSession, url: str, took: list[float]) -> None:
    async with session.ws_connect(f"{url}ws") as socket:
        async for message in socket:
            told = json.loads(message.data)
            if told["type"] == "training_progress":
                took.append(time.time() - told["data"]["at"])


def test_a_certificate_reaches_streams_and_sockets_within_50_ms() -> None:
    async def story(url: str) -> tuple[list[float], list[float]]:
        streams: list[float] = []
        sockets: list[float] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_S), asyncio.TaskGroup() as clients:
                    for _ in range(50):
                        clients.create_task(hear_stream(session, url, streams))
                        clients.create_task(hear_socket(session, url, sockets))
        return streams, sockets

    with page_process(4.0) as url:
        streams, sockets = asyncio.run(story(url))
    print(
        f"{len(streams)} stream events: p95 {1000 * p95(streams):.1f} ms;"
        f" {len(sockets)} socket messages: p95 {1000 * p95(sockets):.1f} ms"
    )
    assert len(streams) > 500
    assert len(sockets) > 500
    assert p95(streams) < EVENT_P95_S
    assert p95(sockets) < EVENT_P95_S


def test_a_thousand_event_streams_are_held_at_once() -> None:
    async def story(url: str) -> int:
        parts = urlsplit(url)
        request = (
            b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(STREAMS)]
        for _, writer in opened:
            writer.write(request)
        heard = 0
        async with asyncio.timeout(READ_S * 3):
            for reader, _ in opened:
                await reader.readuntil(b"event: round")
                heard += 1
        for _, writer in opened:
            writer.close()
        return heard

    with page_process(1.0) as url:
        assert asyncio.run(story(url)) == STREAMS
