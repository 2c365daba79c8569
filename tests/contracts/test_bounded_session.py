"""Endpoints whose answers are too large, too slow, nested too deep, or compressed.

The tests use real sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contracts import bounded_session
from contracts.client import HttpTransport
from protocol.chain.errors import ChainUnreachable

pytestmark = pytest.mark.real

Write = Callable[[bytes], object]


@contextmanager
def answering(
    body: Callable[[Write, threading.Event], None], headers: dict[str, str] | None = None
) -> Iterator[str]:
    """Serve `body` to every request until the test ends, and yield the URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            # A socket that is closed with unread bytes resets its connection, answer and all.
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            # The client closes the connection, as it should.
            with suppress(OSError):
                body(self.wfile.write, over)

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_answer_within_the_limits_is_read() -> None:
    with answering(
        lambda write, _: write(b'{"jsonrpc": "2.0", "id": 0, "result": "' + b"x" * 100_000 + b'"}')
    ) as url:
        assert HttpTransport(url)("eth_chainId", ()) == "x" * 100_000


def test_an_endless_answer_is_abandoned_at_the_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [0]

    def endless(write: Write, over: threading.Event) -> None:
        while not over.is_set():
            write(b"[" * 65536)
            sent[0] += 65536

    with answering(endless) as url, pytest.raises(ChainUnreachable, match="more than 16 MB"):
        HttpTransport(url)("eth_chainId", ())
    # The kernel's socket buffers hold at most 32 MiB.
    assert sent[0] < bounded_session.MAX_ANSWER_BYTES + (32 << 20)


def test_a_slow_answer_is_abandoned_at_the_time_limit() -> None:
    def dripping(write: Write, over: threading.Event) -> None:
        while not over.wait(0.05):
            write(b" ")

    with answering(dripping) as url, pytest.raises(ChainUnreachable, match="not over after"):
        HttpTransport(url, timeout_s=0.3)("eth_chainId", ())


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[" * 200_000, {}),
        (b'{"jsonrpc": "2.0", "id": 0, "result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}),
        (b"\x1f\x8b" + b"x" * 100, {"Content-Encoding": "gzip"}),
        (b"\xff\xfe", {}),
        (b"", {}),
    ],
)
def test_an_unreadable_answer_counts_as_unreachable(body: bytes, headers: dict[str, str]) -> None:
    with answering(lambda write, _: write(body), headers) as url, pytest.raises(ChainUnreachable):
        HttpTransport(url)("eth_chainId", ())
