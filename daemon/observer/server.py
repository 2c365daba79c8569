"""The web thread: aiohttp in one asyncio loop, under the trio nursery.

The socket is bound on the trio side, before there is a thread, so that "the port is taken" is a
plain exception of the caller's. Stopping is one message into the loop; open connections get
`GRACE_S` and are dropped.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from daemon.observer.bridge import Bridge
from daemon.observer.report_queue import ReportQueue
from daemon.observer.request_guard import RequestGuard
from daemon.observer.settings import BoundAddress, ObserverSettings
from daemon.observer.web import make_server
from protocol.errors import UserError

# For answers under way when the server stops; they are ready bytes.
GRACE_S = 0.5
BACKLOG = 128


def _why(error: OSError, settings: ObserverSettings) -> UserError:
    where = f"{settings.host} port {settings.port}"
    what = f"Cannot serve the page on {where}."
    if error.errno == errno.EADDRINUSE:
        fix = "stop the other program, or choose another port: --port PORT, or port under [observer] in config.toml (0 takes any free one)"
        return UserError("PORT_IN_USE", what, why="another program listens there already", fix=fix)
    if error.errno == errno.EACCES:
        return UserError(
            "PORT_DENIED",
            what,
            why="ports below 1024 belong to root",
            fix="set port under [observer] to 1024 or above",
        )
    fix = (
        "set host under [observer] in config.toml to an address of this machine, such as 127.0.0.1"
    )
    return UserError("OBSERVER_ADDRESS", what, why=str(error), fix=fix)


def bind(settings: ObserverSettings) -> socket.socket:
    """A listening socket. Raises `UserError` that says what to type."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _why(error, settings) from None
    try:
        # A restart must not wait for old connections' TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _why(error, settings) from None
    return listener


class _Thread:
    """The asyncio side. `stop` may be called from the trio side at any time."""

    def __init__(
        self,
        bridge: Bridge,
        guard: RequestGuard,
        listener: socket.socket,
        intake: ReportQueue | None,
    ) -> None:
        self._bridge = bridge
        self._guard = guard
        self._listener = listener
        self._intake = intake
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._asked_to_stop = False

    async def _serve(self, token: trio.lowlevel.TrioToken, started: trio.Event) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._asked_to_stop:  # before there was a loop to tell
            return
        server = make_server(self._bridge, self._guard, self._intake)
        listening = await self._loop.create_server(server, sock=self._listener)
        token.run_sync_soon(started.set)
        try:
            await self._stopping.wait()
        finally:
            listening.close()
            server.pre_shutdown()
            await server.shutdown(GRACE_S)

    def run(self, token: trio.lowlevel.TrioToken, started: trio.Event) -> None:
        """The thread's whole life."""
        try:
            asyncio.run(self._serve(token, started))
        finally:
            self._listener.close()
            if self._intake is not None:
                self._intake.close()

    def stop(self) -> None:
        """Ask the loop to end; the thread is gone within `GRACE_S` and a little."""
        self._asked_to_stop = True
        if self._loop is not None and self._stopping is not None:
            # The loop is closed: it has ended by itself.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)


@asynccontextmanager
async def web_server(bridge: Bridge, settings: ObserverSettings) -> AsyncIterator[BoundAddress]:
    """Serve the bridge's snapshots while the block runs.

    Guarantees: inside the block the address answers; after it, cancelled or not, the port is free
    and the thread has ended, within a second. Raises `UserError` when the address cannot be had.
    Should the thread fail, the block is cancelled and the failure raised.
    """
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    bound = BoundAddress(host=host, port=port)
    intake = ReportQueue(settings.reports) if settings.reports is not None else None
    thread = _Thread(bridge, RequestGuard(settings, bound), listener, intake)
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    # It runs as long as the program: it takes no place from those that come and go.
    limiter = trio.CapacityLimiter(math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: trio.to_thread.run_sync(thread.run, token, started, limiter=limiter)
        )
        try:
            await started.wait()
            yield bound
        finally:
            thread.stop()
