"""The first bytes of a connection that begins with neither TLS nor libp2p.

A connection to one of this node's two ports may say first what it is for:

    magic (9 bytes) | kind (1 byte) | token (16 bytes)

TLS begins with 0x16 and libp2p with 0x13, so the first byte tells them apart.
"""

from __future__ import annotations

import socket
from typing import Literal, NamedTuple

import trio

from protocol.errors import Unreachable

MAGIC = b"HyperGPU\x01"
TOKEN_BYTES = 16

PreambleKind = Literal["probe", "observe", "call", "leg"]
_KINDS: dict[PreambleKind, bytes] = {
    # A member calls back to see whether its call arrives; the token comes back.
    "probe": b"p",
    # The caller wants to know its outer address. The token means nothing.
    "observe": b"o",
    # The peer that this node asked to call.
    "call": b"c",
    # One end of a connection that this node relays.
    "leg": b"l",
}
_OF_BYTE = {byte: kind for kind, byte in _KINDS.items()}
PREAMBLE_BYTES = len(MAGIC) + 1 + TOKEN_BYTES


class Preamble(NamedTuple):
    """What a connection is for."""

    kind: PreambleKind
    token: bytes


def encode_preamble(kind: PreambleKind, token: bytes = bytes(TOKEN_BYTES)) -> bytes:
    """The first bytes to send."""
    if len(token) != TOKEN_BYTES:
        raise ValueError(f"a token has {TOKEN_BYTES} bytes")
    return MAGIC + _KINDS[kind] + token


async def has_preamble(stream: trio.SocketStream) -> bool:
    """Whether a connection that has sent something begins with a preamble. Nothing is consumed."""
    try:
        first = await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        return False
    return first == MAGIC[:1]


async def read_preamble(stream: trio.SocketStream) -> Preamble:
    """Read the preamble.

    Raises:
        Unreachable: The connection ended before, or says something else.
    """
    data = await receive_exactly(stream, PREAMBLE_BYTES)
    kind = _OF_BYTE.get(data[len(MAGIC) : len(MAGIC) + 1])
    if not data.startswith(MAGIC) or kind is None:
        raise Unreachable("a connection began with an unknown preamble")
    return Preamble(kind, data[len(MAGIC) + 1 :])


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    """`size` bytes and none of what follows. Raises `Unreachable`."""
    data = b""
    try:
        while len(data) < size:
            piece = await stream.receive_some(size - len(data))
            if not piece:
                raise Unreachable("a connection ended in its first bytes")
            data += piece
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise Unreachable(f"a connection broke in its first bytes: {error}") from error
    return data
