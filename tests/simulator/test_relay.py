"""The relay delivers bytes whole, and delays, narrows, cuts and freezes links as set."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from simulator.harness.relay import CLEAR, LinkCondition, Relay

MEMBER, ADVERTISED = "127.87.1.1", "127.88.1.1"
LIMIT_S = 10.0

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


async def echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Relay, int]]:
    """An echo named "b" behind a relay. This process calls as "a"."""
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            relay = Relay(nursery)
            relay.introduce("a", os.getpid)
            port = await relay.forward("b", ADVERTISED, MEMBER)
            listeners = await trio.open_tcp_listeners(port, host=MEMBER)
            nursery.start_soon(trio.serve_listeners, echo, listeners)
            yield relay, port
            nursery.cancel_scope.cancel()


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        assert piece, "the stream ended early"
        data += piece
    return data


async def round_trip_s(stream: trio.SocketStream) -> float:
    began = time.monotonic()
    await stream.send_all(b"ping")
    assert await exactly(stream, 4) == b"ping"
    return time.monotonic() - began


async def test_bytes_arrive_whole_and_the_end_is_passed_on() -> None:
    sent = os.urandom(3_000_000)
    async with relayed() as (relay, port):
        stream = await trio.open_tcp_stream(ADVERTISED, port)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(sent)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await exactly(stream, len(sent)) == sent
        assert await stream.receive_some(1) == b""
        assert relay.bytes_moved == 2 * len(sent)


async def test_each_direction_has_its_own_delay() -> None:
    async with relayed() as (relay, port):
        stream = await trio.open_tcp_stream(ADVERTISED, port)
        await round_trip_s(stream)
        relay.set("a", "b", LinkCondition(delay_s=0.2))
        assert await round_trip_s(stream) >= 0.2
        relay.set("b", "a", LinkCondition(delay_s=0.15))
        assert await round_trip_s(stream) >= 0.35
        relay.between("a", "b", CLEAR)
        assert min([await round_trip_s(stream) for _ in range(5)]) < 0.15


async def test_narrow_direction_carries_no_more_than_its_rate() -> None:
    async with relayed() as (relay, port):
        stream = await trio.open_tcp_stream(ADVERTISED, port)
        relay.set("a", "b", LinkCondition(bytes_per_second=1e6))
        began = time.monotonic()
        await stream.send_all(bytes(500_000))
        await exactly(stream, 500_000)
        assert 0.4 <= time.monotonic() - began < 3.0


async def test_cut_link_breaks_and_refuses_until_it_is_mended() -> None:
    async with relayed() as (relay, port):
        stream = await trio.open_tcp_stream(ADVERTISED, port)
        await round_trip_s(stream)
        relay.split([["a"], ["b"]], LinkCondition(cut=True))
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            await round_trip_s(stream)
        refused = await trio.open_tcp_stream(ADVERTISED, port)
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            await round_trip_s(refused)
        relay.split([["a"], ["b"]], CLEAR)
        assert await round_trip_s(await trio.open_tcp_stream(ADVERTISED, port)) < LIMIT_S


async def test_other_links_do_not_notice() -> None:
    async with relayed() as (relay, port):
        stream = await trio.open_tcp_stream(ADVERTISED, port)
        relay.between("c", "b", LinkCondition(cut=True))
        relay.between("", "b", LinkCondition(delay_s=5.0))
        assert await round_trip_s(stream) < 2.0


async def test_frozen_link_keeps_what_was_sent() -> None:
    async with relayed() as (relay, port):
        stream = await trio.open_tcp_stream(ADVERTISED, port)
        await round_trip_s(stream)
        relay.set("b", "a", LinkCondition(frozen=True))
        await stream.send_all(b"later")
        with trio.move_on_after(0.3) as waited:
            await stream.receive_some(5)
        assert waited.cancelled_caught
        relay.set("b", "a", CLEAR)
        assert await exactly(stream, 5) == b"later"


async def test_relay_breaks_calls_to_a_member_that_does_not_listen() -> None:
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            relay = Relay(nursery)
            port = await relay.forward("nobody", ADVERTISED, MEMBER)
            stream = await trio.open_tcp_stream(ADVERTISED, port)
            with pytest.raises((trio.BrokenResourceError, AssertionError)):
                await round_trip_s(stream)
            nursery.cancel_scope.cancel()
