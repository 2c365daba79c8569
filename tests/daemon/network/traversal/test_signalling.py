"""Calls that peers ask for: to which ports, and how many at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from daemon.network.error_boundary import Refusals
from daemon.network.traversal import signalling
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.expected import ExpectedConnections
from daemon.network.traversal.messages import CallMe, Incoming, Reply
from daemon.network.traversal.observation import Address
from daemon.network.traversal.reachability import ReachabilityMonitor
from daemon.network.traversal.relay import RelayService, RelaySettings
from daemon.network.traversal.signalling import CALLS_AT_ONCE, CALLS_OF_PEER, Signalling
from protocol.identity import PeerId
from protocol.network.reachability import UNKNOWN_REACHABILITY

TOKEN = bytes(16)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class Everybody:
    """Connections to peers that were all met at one address."""

    def peers(self) -> set[PeerId]:
        return {"one", "two", "three"}

    def host_of(self, peer: PeerId) -> str:
        return "203.0.113.7"

    def rtt_of(self, peer: PeerId) -> float | None:
        return None


class Asked:
    """A stream with one request. Keeps the reply."""

    def __init__(self, peer: PeerId, request: msgspec.Struct) -> None:
        self.peer = peer
        data = msgspec.msgpack.encode(request)
        self._data = len(data).to_bytes(2, "big") + data
        self.sent = b""

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return piece

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data


@asynccontextmanager
async def serving() -> AsyncIterator[Signalling]:
    async def nothing(*_given: object) -> None:
        raise AssertionError("nothing is opened, and nobody calls")

    context = TraversalContext(
        connections=Everybody(),
        open_stream=nothing,  # type: ignore[arg-type]
        accept=nothing,
        expected=ExpectedConnections(),
        refusals=Refusals(),
        matters=lambda _peer: True,
        is_in_run=lambda _peer: True,
        reach_of=lambda _peer: UNKNOWN_REACHABILITY,
    )
    ports = OwnPorts(control=4001, bulk=4002)
    monitor = ReachabilityMonitor(context, ports, lambda: ())
    made = Signalling(context, ports, RelayService(context, RelaySettings(), ports), monitor)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def ask(served: Signalling, peer: PeerId, request: msgspec.Struct) -> str:
    """Returns the name of the reply, with its reason where it is a refusal."""
    stream = Asked(peer, request)
    await served.serve(stream)  # type: ignore[arg-type]
    reply = _replies.decode(stream.sent[2:])
    return f"{type(reply).__name__} {getattr(reply, 'reason', '')}".strip()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The calls that were made; none is ever answered."""
    made: list[Address] = []

    async def call(address: Address, *_given: object) -> trio.SocketStream:
        made.append(address)
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(signalling, "call_with_token", call)
    return made


@pytest.mark.parametrize("port", [0, 22, 25, 80, 1023])
async def test_signalling_calls_no_port_of_the_system(calls: list[Address], port: int) -> None:
    async with serving() as served:
        call_me = CallMe(port=port, token=TOKEN)
        incoming = Incoming(peer="two", purpose="bulk", port=port, token=TOKEN)
        for request in (call_me, incoming):
            assert "belongs to the system" in await ask(served, "one", request)
    assert calls == []


@pytest.mark.parametrize("port", [443, 1024, 65_535])
async def test_signalling_calls_the_port_of_a_node(calls: list[Address], port: int) -> None:
    async with serving() as served:
        assert await ask(served, "one", CallMe(port=port, token=TOKEN)) == "Done"
        await trio.testing.wait_all_tasks_blocked()
    assert calls == [Address("203.0.113.7", port)]


async def test_signalling_leaves_room_for_others_where_one_peer_never_answers(
    calls: list[Address],
) -> None:
    request = CallMe(port=4001, token=TOKEN)
    async with serving() as served:
        for _ in range(CALLS_OF_PEER):
            assert await ask(served, "one", request) == "Done"
        assert "calls for you now" in await ask(served, "one", request)
        for _ in range(CALLS_AT_ONCE - CALLS_OF_PEER):
            assert await ask(served, "two", request) == "Done"
        assert "calls for others now" in await ask(served, "three", request)
        await trio.testing.wait_all_tasks_blocked()
    assert len(calls) == CALLS_AT_ONCE
    assert not served._calls
