"""What a connection costs in window updates and in reads of the socket."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import trio
from libp2p.stream_muxer.yamux.yamux import HEADER_SIZE, TYPE_WINDOW_UPDATE, YAMUX_HEADER_FORMAT

from daemon.network.libp2p import connection
from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.libp2p.read_ahead_stream import READ_AHEAD_BYTES, ReadAheadStream
from daemon.network.tcp import disable_nagle
from tests.daemon.network.nodes import make_echo_node
from tests.ports.network_kit import ECHO, ask, echo, pattern

MESSAGES = 200
MESSAGE_BYTES = 300


@pytest.mark.real
async def test_small_messages_give_no_window_back_and_large_ones_by_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[int] = []
    write = MeasuredYamux._write_frame

    async def counting(self: MeasuredYamux, data: bytes) -> None:
        _, kind, flags, _, length = struct.unpack(YAMUX_HEADER_FORMAT, data[:HEADER_SIZE])
        if kind == TYPE_WINDOW_UPDATE and not flags:
            given_back.append(length)
        await write(self, data)

    monkeypatch.setattr(connection.MeasuredYamux, "_write_frame", counting)
    one = make_echo_node(tmp_path, 0)
    one.serve(ECHO, echo)
    async with one.running():
        two = make_echo_node(tmp_path, 1, one.addresses[-1:])
        async with two.running():
            with trio.fail_after(30):
                stream = await two.open_stream(one.peer, ECHO)
                given_back.clear()
                for index in range(MESSAGES):
                    message = bytes([index]) * MESSAGE_BYTES
                    await stream.send_all(message)
                    got = b""
                    while len(got) < MESSAGE_BYTES:
                        got += await stream.receive_some(MESSAGE_BYTES - len(got))
                    assert got == message
                # The messages of both directions fill less than half a window. Gossip has its
                # own streams.
                assert len(given_back) <= 2
                data = pattern(3_000_001)[:3_000_001]
                assert await ask(stream, data) == data
                await stream.aclose()
    # A stream begins with a window twice as large.
    assert all(length >= 1 << 17 for length in given_back[2:])


@pytest.mark.real
async def test_a_socket_is_read_ahead_and_nothing_is_lost_or_reordered() -> None:
    sent = pattern(3 * READ_AHEAD_BYTES)[: 3 * READ_AHEAD_BYTES]
    got = b""
    reads = 0
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, lambda server: server.send_all(sent), 0)
            client = await trio.testing.open_stream_to_socket_listener(listeners[0])
            assert isinstance(client, trio.SocketStream)
            disable_nagle(client)
            stream = ReadAheadStream(client)
            size = 1
            while data := await stream.read(size):
                assert len(data) <= size
                got += data
                reads += 1
                size = size * 7 % 1009 + 1
            await stream.close()
            nursery.cancel_scope.cancel()
    assert got == sent
    assert reads > 100
