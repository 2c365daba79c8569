"""Ten thousand malformed requests: no error of ours, no crash, no growing memory."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from daemon.observer.api.control import PATHS
from daemon.observer.api.resources import RESOURCES
from daemon.observer.endpoints import ENDPOINTS, PROBES

pytestmark = [pytest.mark.real, pytest.mark.slow]
REQUESTS = 10_000
AT_ONCE = 50
# The allocator keeps some of what a burst needed.
MAX_GROWTH_BYTES = 30_000_000
ANSWER_S = 20.0
TARGETS = (
    *(one.path for one in (*ENDPOINTS, *RESOURCES)),
    *PROBES,
    *PATHS,
    "/ws",
    "/api/nodes/x",
    "/static/page.js",
    "/../../etc/passwd",
)
METHODS = (b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"BREW", b"get", b"")


def garbage(rng: random.Random) -> bytes:
    """Return one request that is wrong somewhere, or nearly everywhere."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n"
    target = rng.choice(TARGETS).encode()
    query = rng.choice(
        (
            b"",
            b"?limit=%d" % rng.randrange(-5, 10**6),
            b"?cursor=" + rng.randbytes(8).hex().encode(),
            b"?limit=1&limit=2",
            b"?%ff=%00&=&&" + b"a" * rng.randrange(3000),
            b"?cursor=" + b"9" * rng.randrange(1, 40) + b".x",
        )
    )
    headers = [rng.choice((b"Host: localhost", b"Host: evil.example", b"Host:", b"X"))]
    headers += rng.sample(
        (
            b"Accept: text/event-stream",
            b"Last-Event-ID: " + rng.randbytes(6).hex().encode(),
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13",
            b"Content-Length: %d" % rng.choice((-1, 0, 5, 10**9)),
            b"Transfer-Encoding: chunked",
            b"Authorization: Bearer \xff\xfe",
            b"If-None-Match: " + b"x" * rng.randrange(20_000),
            b"Origin: null",
            b"\x00: \x01",
        ),
        rng.randrange(4),
    )
    body = rng.choice((b"", b"{", b'{"signed": "00"}', rng.randbytes(50), b"5\r\nhello\r\n"))
    line = rng.choice(METHODS) + b" " + target + query + rng.choice((b" HTTP/1.1", b" HTTP/9", b""))
    return line + b"\r\n" + b"\r\n".join(headers) + b"\r\nConnection: close\r\n\r\n" + body


async def throw(url: str, requests: list[bytes]) -> Counter[int]:
    """Send the requests, each on its own connection; count the statuses of the answers."""
    parts, found = urlsplit(url), Counter[int]()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(data: bytes) -> None:
        async with places, asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(data)
                line = await reader.readline()
            except ConnectionError:
                line = b""
            writer.close()
            words = line.split()
            found[int(words[1]) if len(words) > 1 and words[1].isdigit() else 0] += 1

    async with asyncio.TaskGroup() as group:
        for data in requests:
            group.create_task(one(data))
    return found


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process has ended")


def test_ten_thousand_malformed_requests_cause_no_error_of_ours() -> None:
    rng = random.Random(19)
    requests = [garbage(rng) for _ in range(REQUESTS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.daemon.observer.page_process", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        url = process.stdout.readline().strip()
        asyncio.run(throw(url, requests[:1000]))
        before = resident_bytes(process.pid)
        found = asyncio.run(throw(url, requests[1000:]))
        grown = resident_bytes(process.pid) - before
    finally:
        process.kill()
        told = process.communicate()[1]
    print(f"{sum(found.values())} requests: {dict(sorted(found.items()))}; grew {grown:,} bytes")
    assert not [status for status in found if status >= 500 and status != 503], (found, told)
    assert "Traceback" not in told
    assert grown < MAX_GROWTH_BYTES
