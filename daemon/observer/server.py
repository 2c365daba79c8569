"""The web thread: aiohttp in one asyncio loop, under the trio nursery.

The socket is bound on the trio side before the thread starts, so that a port in use is an exception
in the caller. To stop, the trio side sends one message into the loop; open connections get
`GRACE_S` and are then closed.
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

from daemon.observer.bridge import Bridge
from daemon.observer.http_server import make_server
from daemon.observer.report_queue import ReportQueue
from daemon.observer.request_guard import RequestGuard
from daemon.observer.settings import BoundAddress, ObserverSettings
from protocol.errors import UserError

# Time for answers that are being sent when the server stops.
GRACE_S = 0.5
BACKLOG = 1024
IN_USE = "PORT_IN_USE"
MAX_PORT = 65535


def _why(error: OSError, settings: ObserverSettings) -> UserError:
    where = f"{settings.host} port {settings.port}"
    what = f"Cannot serve the page on {where}."
    if error.errno == errno.EADDRINUSE:
        fix = (
            "stop that program, or start with --port 0 to use a free port"
            " (or set port under [observer] in config.toml)"
        )
        return UserError(IN_USE, what, why="another program uses this port", fix=fix)
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
    """Bind a listening socket. Raises `UserError` that says what to type.

    Where programs use the port, it tries the `more_ports` above, and then any free one.
    """
    above = settings.port + settings.more_ports
    for port in range(settings.port, min(above, MAX_PORT)):
        try:
            return _bind(msgspec.structs.replace(settings, port=port))
        except UserError as error:
            if error.code != IN_USE:
                raise
    return _bind(msgspec.structs.replace(settings, port=0) if settings.more_ports else settings)


def _bind(settings: ObserverSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _why(error, settings) from None
    try:
        # Without this a restart waits until old connections have left TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _why(error, settings) from None
    return listener


class _Thread:
    """The asyncio side. The trio side may call `stop` at any time."""

    def __init__(
        self,
        bridge: Bridge,
        guard: RequestGuard,
        listener: socket.socket,
        reports: ReportQueue | None,
    ) -> None:
        self._bridge = bridge
        self._guard = guard
        self._listener = listener
        self._reports = reports
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._asked_to_stop = False

    async def _serve(self, token: trio.lowlevel.TrioToken, started: trio.Event) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._asked_to_stop:
            # `stop` was called before this loop existed.
            return
        server = make_server(self._bridge, self._guard, self._reports)
        listening = await self._loop.create_server(server, sock=self._listener)
        token.run_sync_soon(started.set)
        try:
            await self._stopping.wait()
        finally:
            listening.close()
            server.broadcaster.close()
            server.pre_shutdown()
            await server.shutdown(GRACE_S)

    def run(self, token: trio.lowlevel.TrioToken, started: trio.Event) -> None:
        """Serve until `stop`; this is what the thread runs."""
        try:
            asyncio.run(self._serve(token, started))
        finally:
            self._listener.close()
            if self._reports is not None:
                self._reports.close()

    def stop(self) -> None:
        """Ask the loop to end; the thread ends a little after `GRACE_S`."""
        self._asked_to_stop = True
        if self._loop is not None and self._stopping is not None:
            # A RuntimeError means that the loop has ended by itself.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)


@asynccontextmanager
async def web_server(bridge: Bridge, settings: ObserverSettings) -> AsyncIterator[BoundAddress]:
    """Serve the bridge's snapshots while the block runs.

    Inside the block the address answers. Within a second after the block, cancelled or not, the
    port is free and the thread has ended. If the thread fails, the block is cancelled and the
    failure is raised.

    Raises `UserError` where the address cannot be bound.
    """
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    bound = BoundAddress(host=host, port=port)
    reports = ReportQueue(settings.reports) if settings.reports is not None else None
    thread = _Thread(bridge, RequestGuard(settings, bound), listener, reports)
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    # The thread lives as long as the program, so it must not use a place of trio's shared limiter.
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
