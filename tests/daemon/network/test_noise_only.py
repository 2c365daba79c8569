"""The control port speaks Noise and yamux, and offers nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.network.nodes import control_port, make_node

pytestmark = pytest.mark.real

HELLO = b"/multistream/1.0.0"


class Negotiation:
    """multistream-select by hand: a varint length, words, a line feed.

    See https://github.com/multiformats/multistream-select.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def say(self, words: bytes) -> None:
        await self._stream.send_all(bytes((len(words) + 1,)) + words + b"\n")

    async def hear(self) -> bytes:
        while not self._received or len(self._received) < 1 + self._received[0]:
            piece = await self._stream.receive_some(4096)
            assert piece
            self._received += piece
        size = self._received[0]
        words, self._received = self._received[1:size], self._received[1 + size :]
        return words


@pytest.mark.parametrize(
    "offer",
    [
        b"/plaintext/2.0.0",
        b"/plaintext/1.0.0",
        b"/secio/1.0.0",
        b"/tls/1.0.0",
        b"/yamux/1.0.0",
        b"/ipfs/ping/1.0.0",
    ],
)
async def test_other_security_is_not_available(offer: bytes, tmp_path: Path) -> None:
    node = make_node(tmp_path, 1)
    with trio.fail_after(30):
        async with (
            node.running(),
            await trio.open_tcp_stream("127.0.0.1", control_port(node)) as stream,
        ):
            talk = Negotiation(stream)
            await talk.say(HELLO)
            assert await talk.hear() == HELLO
            await talk.say(offer)
            assert await talk.hear() == b"na"
            await talk.say(b"ls")
            assert await talk.hear() == b"/noise\n"
            await talk.say(b"/noise")
            assert await talk.hear() == b"/noise"
