"""Streams on both planes of a network."""

from __future__ import annotations

import pytest
import trio

from protocol.errors import Unreachable
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from tests.ports.network_kit import (
    ECHO,
    FAULT,
    HOLD,
    SIZES,
    TIMEOUT_S,
    Handlers,
    Opener,
    SwarmFactory,
    ask,
    eventually,
    must_fail,
    open_admitted_bulk,
    open_control,
    pattern,
    receive_all,
)


class NetworkStreamSuite:
    """Part of `NetworkSuite`."""

    @pytest.fixture(params=[open_control, open_admitted_bulk], ids=["control", "bulk"])
    def opener(self, request: pytest.FixtureRequest) -> Opener:
        opener: Opener = request.param
        return opener

    async def test_bytes_arrive_whole_and_in_order_for_any_size(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                for size in SIZES:
                    stream = await opener(here, there, ECHO)
                    data = pattern(size)[:size]
                    assert await ask(stream, data) == data, f"{size} bytes came back changed"
                    await stream.aclose()

    async def test_both_sides_know_who_the_other_is(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                assert len({network.peer for network in swarm.networks}) == 3
                for number, here in enumerate(swarm.networks[:2]):
                    stream = await opener(here, swarm.networks[2], ECHO)
                    assert stream.peer == swarm.networks[2].peer
                    assert await ask(stream, b"who") == b"who"
                    assert handlers.came[number] == (2, here.peer)
                    await stream.aclose()

    async def test_one_direction_ends_while_the_other_goes_on(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                stream = await opener(here, there, HOLD)
                assert await stream.receive_some(10) == b"!"
                assert handlers.held == 1
                # The handler reads the end, and ends its own side.
                await stream.send_eof()
                assert await stream.receive_some(10) == b""
                assert await stream.receive_some(10) == b"", "the end is the end for good"
                await eventually(lambda: handlers.held == 0)
                await stream.aclose()

    async def test_streams_run_side_by_side(self, make_swarm: SwarmFactory, opener: Opener) -> None:
        handlers = Handlers()
        answers: dict[int, bytes] = {}
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks

                async def one(number: int) -> None:
                    stream = await opener(here, there, ECHO)
                    answers[number] = await ask(stream, pattern(20_000, number)[:20_000])
                    await stream.aclose()

                async with trio.open_nursery() as nursery:
                    for number in range(12):
                        nursery.start_soon(one, number)
                assert answers == {number: pattern(20_000, number)[:20_000] for number in range(12)}

    async def test_a_stream_without_a_reader_blocks_only_itself(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()

        def prepare(network: Network, index: int) -> None:
            handlers.prepare(network, index)

            async def deaf(stream: ByteStream) -> None:
                handlers.arrived.set()
                await trio.sleep_forever()

            network.serve("/hypergpu/test/deaf/1", deaf)
            network.serve_bulk("/hypergpu/test/deaf/1", deaf)

        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, prepare) as swarm, trio.open_nursery() as nursery:
                here, there = swarm.networks
                stuck = await opener(here, there, "/hypergpu/test/deaf/1")
                blocked = trio.Event()

                async def flood() -> None:
                    with trio.CancelScope() as scope:
                        while True:
                            with trio.move_on_after(2.0) as timeout:
                                await stuck.send_all(bytes(1 << 20))
                            if timeout.cancelled_caught:
                                blocked.set()
                                scope.cancel()

                nursery.start_soon(flood)
                # Back-pressure reached the sender: no buffer in between grows without limit.
                await blocked.wait()
                stream = await opener(here, there, ECHO)
                assert await ask(stream, b"still here") == b"still here"
                await stream.aclose()
                await stuck.aclose()

    async def test_unknown_protocol_is_unreachable(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                await must_fail(lambda: opener(here, there, "/hypergpu/test/nobody-serves-this/1"))
                stream = await opener(here, there, ECHO)
                assert await ask(stream, b"fine") == b"fine"
                await stream.aclose()

    async def test_handler_that_raises_a_peer_fault_loses_only_its_stream(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                other = await opener(here, there, HOLD)
                assert await other.receive_some(1) == b"!"
                stream = await opener(here, there, FAULT)
                try:
                    await stream.send_all(b"x")
                    assert await receive_all(stream) == b""
                except Unreachable:
                    # The stream is closed or broken, so it has ended.
                    pass
                await stream.aclose()
                assert handlers.held == 1, "the other stream was touched"
                await other.send_eof()
                assert await receive_all(other) == b""
                await other.aclose()
