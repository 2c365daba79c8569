"""Calls a daemon over its control socket.

It uses a plain blocking socket: `hypergpud status` must answer within 0.3 s of its start.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec

from daemon.control.wire import (
    CLIENT_TIMEOUT_S,
    MAX_REPLY_BYTES,
    ControlReply,
    ControlRequest,
    socket_address,
)
from daemon.home.layout import LOG_FILE
from daemon.home.lock import find_holder
from protocol.errors import OurFault, UserError

NOT_RUNNING_EXIT_CODE = 3
# The daemon makes a removed socket again within a second. A start takes about 2 s until it listens.
RETRY_S = 2.5
POLL_S = 0.05


def call(home: Path, name: str, *, timeout_s: float = CLIENT_TIMEOUT_S) -> bytes:
    """Return the daemon's answer to the call `name`, as JSON, within `timeout_s`.

    A daemon that holds the home but does not listen yet is called again for `RETRY_S`.

    Raises:
        UserError: "NOT_RUNNING" (exit code 3) where no daemon holds the home, "STARTING" where the
            daemon does not listen, "NOT_ANSWERING" where it does not answer in time, or the error
            that the daemon answered with.
    """
    deadline = time.monotonic() + timeout_s
    try:
        line = _exchange_again(
            home, msgspec.json.encode(ControlRequest(call=name)) + b"\n", deadline
        )
    except TimeoutError:
        raise _silent(home, f"it did not answer {name!r} within {timeout_s:g} s") from None
    except PermissionError:
        raise UserError(
            "FORBIDDEN",
            f"The daemon on {home} belongs to another user.",
            fix="run the command as that user",
        ) from None
    except OSError:
        raise _absent(home) from None
    if not line.endswith(b"\n"):
        raise _silent(home, "it closed the connection before the end of its answer")
    try:
        answer = msgspec.json.decode(line, type=ControlReply)
    except msgspec.DecodeError as error:
        raise OurFault(f"the daemon's answer cannot be read: {error}") from error
    if not answer.ok:
        raise UserError(
            answer.code, answer.what, why=answer.why, fix=answer.fix, exit_code=answer.exit_code
        )
    return bytes(answer.result)


def _exchange_again(home: Path, request: bytes, deadline: float) -> bytes:
    """Repeat `_exchange` while a daemon holds the home and does not listen."""
    last = time.monotonic() + min(RETRY_S, _left(deadline) / 2)
    while True:
        try:
            return _exchange(home, request, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            held = find_holder(home)
            if held is None or not held.here or time.monotonic() > last:
                raise
            time.sleep(POLL_S)


def _exchange(home: Path, request: bytes, deadline: float) -> bytes:
    received = bytearray()
    with (
        socket_address(home) as address,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.settimeout(_left(deadline))
        connection.connect(address)
        connection.sendall(request)
        while not received.endswith(b"\n"):
            connection.settimeout(_left(deadline))
            chunk = connection.recv(1 << 16)
            if not chunk:
                break
            received += chunk
            if len(received) > MAX_REPLY_BYTES:
                raise OurFault(f"the daemon's answer has more than {MAX_REPLY_BYTES} bytes")
    return bytes(received)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _absent(home: Path) -> UserError:
    held = find_holder(home)
    if held is not None and not held.here:
        return UserError(
            "ELSEWHERE",
            f"The daemon on {home} runs on another machine ({held}).",
            why="a daemon only accepts commands on its own machine",
            fix=f"run the command on {held.host}",
        )
    if held is not None:
        return UserError(
            "STARTING",
            f"The daemon on {home} ({held}) does not accept commands.",
            why="it is starting or stopping",
            fix="try again in a few seconds; if that does not help, look at the end of"
            f" {home / LOG_FILE}",
        )
    return UserError(
        "NOT_RUNNING",
        f"No daemon is running on {home}.",
        why="no process listens on its control socket",
        fix=f"hypergpud start --home {home}",
        exit_code=NOT_RUNNING_EXIT_CODE,
    )


def _silent(home: Path, why: str) -> UserError:
    held = find_holder(home)
    return UserError(
        "NOT_ANSWERING",
        f"The daemon on {home} ({held or 'process unknown'}) does not answer.",
        why=why,
        fix=f"look at the end of {home / LOG_FILE}"
        + (f"; if it is stuck: kill {held.pid}, then start it again" if held else ""),
    )
