"""The devnet's HTTP server on loopback, and a thread that makes a block at every block time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from contracts.devnet.evm import Devnet
from contracts.devnet.rpc import Rpc
from contracts.devnet.store import SqliteStore

# geth's limit for a transaction is 128 KB.
MAX_BODY_BYTES = 1 << 20
# A connection without requests is closed after this time.
IDLE_S = 60.0


@contextmanager
def serving(
    genesis: dict[str, Any],
    kept: Path | None,
    *,
    host: str,
    port: int,
    block_s: float,
    now: Callable[[], float],
) -> Iterator[tuple[str, Devnet]]:
    """Serve a devnet until the block ends, and yield its URL and the chain.

    Without `kept` the chain is in memory. With `block_s` 0, each transaction gets a block at once.
    Raises `OSError` if the port is in use, and `ValueError` if the chain in `kept` began with
    another genesis.
    """
    devnet = Devnet(genesis, SqliteStore(kept), now)
    rpc = Rpc(devnet, auto_mine=block_s == 0)
    ended = threading.Event()

    def make_blocks() -> None:
        while not ended.wait(block_s):
            devnet.mine()

    try:
        server = ThreadingHTTPServer((host, port), _handler_for(rpc))
        # A client with an open connection does not delay the end.
        server.daemon_threads = True
        threads = [
            threading.Thread(
                target=server.serve_forever, name="devnet-http", kwargs={"poll_interval": 0.05}
            )
        ]
        if block_s:
            threads.append(threading.Thread(target=make_blocks, name="devnet-blocks"))
        for thread in threads:
            thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}", devnet
        finally:
            ended.set()
            server.shutdown()
            for thread in threads:
                thread.join()
            server.server_close()
    finally:
        devnet.close()


def _handler_for(rpc: Rpc) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_S

        def do_POST(self) -> None:
            # A web page may send this content type only with the server's permission, which the
            # server never gives.
            if self.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
                self._say(415, b"The content type must be application/json.\n", "text/plain")
                return
            try:
                size = int(self.headers.get("Content-Length", ""))
            except ValueError:
                self._say(411, b"Content-Length is required.\n", "text/plain")
                return
            if not 0 <= size <= MAX_BODY_BYTES:
                self.close_connection = True
                self._say(413, b"The body is too long.\n", "text/plain")
                return
            self._say(200, rpc.answer(self.rfile.read(size)), "application/json")

        def _say(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log no requests."""

    return Handler
