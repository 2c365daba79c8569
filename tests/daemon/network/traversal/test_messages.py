"""Requests over control streams: what is not understood is refused."""

from __future__ import annotations

import msgspec
import pytest

from daemon.network.traversal.messages import (
    MAX_MESSAGE_BYTES,
    AskRelay,
    Introduce,
    OuterAddress,
    receive_request,
)
from protocol.errors import PeerFault, Unreachable


class Bytes:
    """A stream that gives some bytes and then ends."""

    peer = "p"

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive_some(self, max_bytes: int) -> bytes:
        piece, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return piece


async def receive(body: bytes, size: int | None = None) -> object:
    length = (len(body) if size is None else size).to_bytes(2, "big")
    return await receive_request(Bytes(length + body))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [
        AskRelay(to="p"),
        Introduce(to="p", purpose="bulk", outer=OuterAddress(host="203.0.113.7", port=4001)),
    ],
)
async def test_receive_request_reads_what_was_sent(request_: msgspec.Struct) -> None:
    assert await receive(msgspec.msgpack.encode(request_)) == request_


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91" * 1000 + b"\xc0", msgspec.msgpack.encode(["AskRelay", 7])]
)
async def test_receive_request_refuses_garbage(body: bytes) -> None:
    with pytest.raises(PeerFault):
        await receive(body)


async def test_receive_request_refuses_what_is_too_long_or_cut_short() -> None:
    with pytest.raises(PeerFault, match="a request of 1027 bytes"):
        await receive(b"", size=MAX_MESSAGE_BYTES + 1)
    with pytest.raises(Unreachable):
        await receive(b"\x92", size=100)
