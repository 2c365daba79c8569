"""Answers commands on a Unix socket with mode 0600 in the home.

Only a well-formed call of a known name has an effect.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from daemon.control.wire import (
    MAX_REQUEST_BYTES,
    SERVER_TIMEOUT_S,
    ControlReply,
    ControlRequest,
    socket_address,
)
from daemon.home.layout import SOCKET_FILE, unusable_home
from daemon.system.offload import in_abandonable_thread
from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError
from protocol.text.nearest import nearest

Handler = Callable[[], Awaitable[bytes]]
"""Answers a call with JSON, or raises `UserError`, which the client then shows."""

# One person types the commands. Further connections wait in the backlog.
MAX_CONNECTIONS = 16
BACKLOG = 64
# Between two checks of the socket's name.
LOOK_S = 1.0

_log = logging.getLogger(__name__)


async def serve_control(
    home: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer the home's commands until cancelled. Reports `started` once the socket listens.

    The caller holds the home's lock, so an existing socket belongs to a daemon that is gone, and is
    replaced. A socket that is removed while the daemon runs, as by a cleaner of old files, is made
    again within `LOOK_S`, and the log says so.

    Each connection gets one answer, and ends within its time limits. At most `MAX_CONNECTIONS` are
    served at once. A client that sends garbage, too much, too little or nothing gets an error where
    possible, and changes nothing. A handler that has begun is cancelled only with the server.
    """
    slots = trio.Semaphore(MAX_CONNECTIONS)
    async with trio.open_nursery() as nursery:
        listener = _listen(home)
        task_status.started()
        while True:
            made = _file_id(home)
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(_accept, listener, handlers, slots, nursery)
                    await _until_renamed(home, made)
                    accepting.cancel_scope.cancel()
            finally:
                listener.close()
                if _file_id(home) == made:
                    with suppress(FileNotFoundError):
                        (home / SOCKET_FILE).unlink()
            listener = await _listen_again(home)


async def _accept(
    listener: trio.socket.SocketType,
    handlers: Mapping[str, Handler],
    slots: trio.Semaphore,
    nursery: trio.Nursery,
) -> None:
    while True:
        await slots.acquire()
        accepted = False
        try:
            connection, _ = await listener.accept()
            accepted = True
        except OSError as error:
            if error.errno not in (
                errno.EMFILE,
                errno.ENFILE,
                errno.ENOBUFS,
                errno.ENOMEM,
                errno.ECONNABORTED,
            ):
                raise
            _log.warning("A command was not accepted: %s", error.strerror)
            # Other descriptors must be closed first.
            await trio.sleep(0.1)
            continue
        finally:
            if not accepted:
                slots.release()
        nursery.start_soon(_answer_one, connection, handlers, slots)


def _file_id(home: Path) -> tuple[int, int] | None:
    """Return the device and the inode of the socket's file; None where they are unknown."""
    try:
        about = os.lstat(home / SOCKET_FILE)
    except OSError:
        return None
    return about.st_dev, about.st_ino


async def _until_renamed(home: Path, made: tuple[int, int] | None) -> None:
    while await in_abandonable_thread(lambda: _file_id(home)) == made:
        await trio.sleep(LOOK_S)


async def _listen_again(home: Path) -> trio.socket.SocketType:
    """Make a new socket, as soon as that is possible."""
    warned = False
    while True:
        try:
            listener = _listen(home)
        except UserError as error:
            if not warned:
                _log.warning(
                    "The control socket was removed and cannot be made again yet: %s", error.why
                )
            warned = True
            await trio.sleep(LOOK_S)
        else:
            _log.warning("The control socket %s was removed and is made again", home / SOCKET_FILE)
            return listener


def _listen(home: Path) -> trio.socket.SocketType:
    """Make the socket and listen on it. Raises `UserError("HOME")`."""
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        (home / SOCKET_FILE).unlink(missing_ok=True)
        # Before bind, so that the file never has wider permissions: on Linux it gets the socket's.
        os.fchmod(plain.fileno(), 0o600)
        with socket_address(home) as address:
            plain.bind(address)
    except OSError as error:
        plain.close()
        raise unusable_home(home, error) from None
    plain.listen(BACKLOG)
    plain.setblocking(False)
    return trio.socket.from_stdlib_socket(plain)


async def _answer_one(
    connection: trio.socket.SocketType, handlers: Mapping[str, Handler], slots: trio.Semaphore
) -> None:
    try:
        # The client may be gone, and then needs no answer.
        with suppress(OSError):
            line = b""
            with trio.move_on_after(SERVER_TIMEOUT_S):
                line = await _read_line(connection)
            answer = msgspec.json.encode(await _answer(line, handlers)) + b"\n"
            # Shielded, so that the answer to `stop` arrives although `stop` cancels this server.
            # The deadline ends a client that does not read.
            with trio.move_on_after(SERVER_TIMEOUT_S) as sending:
                sending.shield = True
                await _send_all(connection, answer)
    finally:
        connection.close()
        slots.release()


async def _answer(line: bytes, handlers: Mapping[str, Handler]) -> ControlReply:
    if not line.endswith(b"\n"):
        return ControlReply(
            ok=False,
            code="CONTROL",
            what=f"A request is one line of JSON, at most {MAX_REQUEST_BYTES} bytes long.",
            exit_code=2,
        )
    try:
        request = msgspec.json.decode(line, type=ControlRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return ControlReply(
            ok=False,
            code="CONTROL",
            what="The request cannot be read.",
            why=str(error),
            exit_code=2,
        )
    handler = handlers.get(request.call)
    if handler is None:
        meant = nearest(request.call, list(handlers))
        fix = (
            f"did you mean {meant}?"
            if meant
            else f"this daemon knows: {', '.join(sorted(handlers))}"
        )
        return ControlReply(
            ok=False,
            code="CONTROL",
            what=f"The daemon does not know the call {request.call[:64]!r}.",
            fix=fix,
            exit_code=2,
        )
    try:
        return ControlReply(ok=True, result=msgspec.Raw(await handler()))
    except UserError as error:
        return ControlReply(
            ok=False,
            code=error.code,
            what=error.what,
            why=error.why,
            fix=error.fix,
            exit_code=error.exit_code,
        )


async def _read_line(connection: trio.socket.SocketType) -> bytes:
    """Read up to the first line feed, the end, or the limit. Ignores what follows a line feed."""
    received = bytearray()
    while len(received) <= MAX_REQUEST_BYTES:
        chunk = await connection.recv(MAX_REQUEST_BYTES)
        received += chunk
        end = received.find(b"\n")
        if 0 <= end < MAX_REQUEST_BYTES:
            return bytes(received[: end + 1])
        if not chunk:
            break
    return b""


async def _send_all(connection: trio.socket.SocketType, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[await connection.send(view) :]
