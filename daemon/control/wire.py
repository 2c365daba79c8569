"""What travels over the control socket: one line of JSON asks, one line answers, both limited in
size; then the connection closes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from daemon.home.layout import SOCKET_FILE

MAX_REQUEST_BYTES = 4096  # a call's name
# The status of a swarm of 4,096 peers is 2 MB.
MAX_REPLY_BYTES = 16 << 20
# A status is folded already and answered at once; a person waiting longer thinks the command hangs.
CLIENT_TIMEOUT_S = 5.0
SERVER_TIMEOUT_S = 5.0  # a client sends its line at once


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: the name of a handler."""

    call: str


class ControlReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Either `result`, or the fields of a `UserError`."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    what: str = ""
    why: str = ""
    fix: str = ""
    exit_code: int = 1


@contextmanager
def socket_address(home: Path) -> Iterator[str]:
    """The address of the home's socket for bind(2) and connect(2), valid inside the block.

    The kernel takes 107 bytes of path at most, and a home may be deeper. Named through an open
    directory the address is short wherever the home is, needs no second place that both sides must
    agree on, and cannot be squatted by somebody else in /tmp. Raises `FileNotFoundError` where
    there is no home.
    """
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_FILE}"
    finally:
        os.close(directory)
