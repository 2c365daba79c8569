"""Connections that begin with a preamble, on both ports of a real node."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.traversal.expected import ExpectedConnections
from daemon.network.traversal.observation import Address, observe
from daemon.network.traversal.preamble import (
    MAGIC,
    PREAMBLE_BYTES,
    TOKEN_BYTES,
    encode_preamble,
)
from tests.daemon.network.nodes import control_port, make_node

pytestmark = pytest.mark.real


def ports(node: LibP2PNetwork) -> tuple[int, int]:
    return control_port(node), node.endpoint.port


async def test_observe_names_the_address_of_the_caller_on_both_ports(tmp_path: Path) -> None:
    node = make_node(tmp_path, 1)
    async with node.running():
        with trio.fail_after(20):
            local, seen = await observe(Address("127.0.0.1", ports(node)[0]))
            again, other = await observe(Address("127.0.0.1", ports(node)[1]), local)
    assert (again, seen, other) == (local, ("127.0.0.1", local), ("127.0.0.1", local))


@pytest.mark.parametrize(
    "sent",
    [
        encode_preamble("probe", bytes(TOKEN_BYTES)),
        encode_preamble("leg", bytes(TOKEN_BYTES)),
        encode_preamble("call", bytes(TOKEN_BYTES)),
        MAGIC + b"?" + bytes(TOKEN_BYTES),
        b"H" * PREAMBLE_BYTES,
        MAGIC,
    ],
)
async def test_a_preamble_that_nobody_expects_gets_no_answer_and_harms_nothing(
    tmp_path: Path, sent: bytes
) -> None:
    node = make_node(tmp_path, 1)
    async with node.running():
        with trio.fail_after(20):
            for port in ports(node):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(sent)
                await stream.send_eof()
                with pytest.raises((AssertionError, trio.BrokenResourceError)):
                    # A close or a reset: never a byte.
                    assert await stream.receive_some(1)
                await stream.aclose()
            await observe(Address("127.0.0.1", ports(node)[1]))


@pytest.mark.parametrize("port", [0, 1])
async def test_callers_that_ask_for_their_address_and_stay_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr("daemon.network.paths.direct_server.MAX_HANDSHAKES", 4)
    monkeypatch.setattr("daemon.network.libp2p.inbound.MAX_HANDSHAKES", 4)
    # Longer than the test, so that only the limit ends a connection.
    monkeypatch.setattr("daemon.network.traversal.observation.OBSERVE_S", 600.0)
    node = make_node(tmp_path, 1)
    async with node.running():
        with trio.fail_after(30):
            callers = list[trio.SocketStream]()
            for _ in range(5):
                callers.append(await trio.open_tcp_stream("127.0.0.1", ports(node)[port]))
                await callers[-1].send_all(encode_preamble("observe"))
                assert (await callers[-1].receive_some(60)).startswith(b"127.0.0.1 ")
            assert await callers[0].receive_some(1) == b""
            for caller in callers:
                await caller.aclose()


async def test_an_expected_connection_arrives_once_and_never_after_its_block() -> None:
    one, two = await _pair()
    expected = ExpectedConnections()
    with expected.expecting() as expectation:
        assert not expected.give(bytes(TOKEN_BYTES), one)
        assert expected.give(expectation.token, one)
        assert not expected.give(expectation.token, one)
        await one.aclose()
        given = await expectation.stream()
        await given.send_all(b"alive")
        assert await two.receive_some(5) == b"alive"
        await given.aclose()
    assert not expected.give(expectation.token, two)
    assert len(expected) == 0
    await two.aclose()


async def _pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    one = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    two = await listener.accept()
    await listener.aclose()
    return one, two
