"""The web thread of the API: aiohttp in one asyncio loop, under the trio nursery.

As in `daemon/observer/server.py`, trio binds the socket before the thread starts, so that a port in
use is an exception in the caller.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from daemon.api.answers import Answers
from daemon.api.api_connection import ApiServer
from daemon.api.handlers import ApiHandlers
from protocol.errors import UserError

# Time for answers that are being sent when the server stops.
GRACE_S = 0.5
BACKLOG = 256


class ApiAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL that clients take."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket. Raises `UserError` that says what to type."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unable(host, port, error) from None
    try:
        # Without this a restart waits until old connections have left TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _unable(host, port, error) from None
    return listener


def _unable(host: str, port: int, error: OSError) -> UserError:
    in_use = error.errno == errno.EADDRINUSE
    return UserError(
        "PORT_IN_USE" if in_use else "API_ADDRESS",
        f"Cannot serve the API on {host} port {port}.",
        why="another program uses this port" if in_use else error.strerror or str(error),
        fix="stop that program, or start with --port 0 to use a free port"
        if in_use
        else "name an address of this machine, such as --host 127.0.0.1",
    )


class _WebThread:
    """The asyncio side. Trio's side may call `stop` at any time."""

    def __init__(self, handlers: ApiHandlers, listener: socket.socket) -> None:
        self._handlers, self._listener = handlers, listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._asked_to_stop = False

    def run(self, token: trio.lowlevel.TrioToken, started: trio.Event) -> None:
        """Serve until `stop`; this is what the thread runs."""
        try:
            asyncio.run(self._serve(token, started))
        finally:
            self._listener.close()

    def stop(self) -> None:
        """Ask the loop to end; the thread ends a little after `GRACE_S`."""
        self._asked_to_stop = True
        if self._loop is not None and self._stopping is not None:
            # A RuntimeError means that the loop has ended by itself.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self, token: trio.lowlevel.TrioToken, started: trio.Event) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._asked_to_stop:
            # `stop` was called before this loop existed.
            return
        server = ApiServer(self._handlers.handle, self._handlers.max_open)
        listening = await self._loop.create_server(server, sock=self._listener)
        token.run_sync_soon(started.set)
        try:
            await self._stopping.wait()
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(GRACE_S)


@asynccontextmanager
async def api_server(
    answers: Answers, key: str, *, host: str, port: int
) -> AsyncIterator[ApiAddress]:
    """Answer requests while the block runs.

    Inside the block the address answers. After the block, cancelled or not, the port is free, the
    thread has ended, and no answer is being made.

    Raises `UserError` where the address cannot be bound.
    """
    listener = listen(host, port)
    bound = ApiAddress(host=listener.getsockname()[0], port=listener.getsockname()[1])
    thread = _WebThread(ApiHandlers(answers, key), listener)
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    # The thread lives as long as the program, so it must not use a place of trio's shared limiter.
    limiter = trio.CapacityLimiter(math.inf)
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            await outer.start(answers.run)
            nursery.start_soon(
                lambda: trio.to_thread.run_sync(thread.run, token, started, limiter=limiter)
            )
            try:
                await started.wait()
                yield bound
            finally:
                thread.stop()
        outer.cancel_scope.cancel()
