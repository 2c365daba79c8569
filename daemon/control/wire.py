"""Defines the messages on the control socket.

The client sends one line of JSON, the daemon answers with one line, and the connection closes.
Both lines are limited in size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from daemon.home.layout import SOCKET_FILE

# A request holds a call's name.
MAX_REQUEST_BYTES = 4096
# The status of a swarm of 4,096 peers has 2 MB.
MAX_REPLY_BYTES = 16 << 20
# The daemon answers at once. A person who waits longer thinks that the command hangs.
CLIENT_TIMEOUT_S = 5.0
# A client sends its line at once.
SERVER_TIMEOUT_S = 5.0


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the handler named `call`."""

    call: str


class ControlReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `result` of a call, or the fields of a `UserError`."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    what: str = ""
    why: str = ""
    fix: str = ""
    exit_code: int = 1


@contextmanager
def socket_address(home: Path) -> Iterator[str]:
    """Give the address of the home's socket for bind(2) and connect(2), valid inside the block.

    A socket's path has at most 107 bytes, and a home may be deeper. The address therefore names the
    home through an open directory. It needs no second directory that both sides must know, and
    other users cannot occupy it, as they could in /tmp.

    Raises `FileNotFoundError` for a home that does not exist.
    """

    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_FILE}"
    finally:
        os.close(directory)
