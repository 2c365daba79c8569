"""Streams that are closed, cancelled, broken or too many."""

from __future__ import annotations

import pytest
import trio

from protocol.errors import Unreachable
from protocol.identity import Signer
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import MAX_STREAMS_PER_PEER
from tests.ports.network_kit import (
    ECHO,
    HOLD,
    LOSS_NOTICED_S,
    TIMEOUT_S,
    Handlers,
    Opener,
    SwarmFactory,
    ask,
    eventually,
    open_admitted_bulk,
    open_control,
    receive_all,
    send_without_end,
)


class NetworkFailureSuite:
    """Part of `NetworkSuite`."""

    async def test_closing_is_safe_twice_and_under_cancellation(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                stream = await opener(here, there, HOLD)
                await stream.aclose()
                await stream.aclose()
                with trio.CancelScope() as scope:
                    second = await opener(here, there, HOLD)
                    scope.cancel()
                    try:
                        await second.send_all(bytes(100_000))
                    finally:
                        await second.aclose()
                # The other side noticed both.
                await eventually(lambda: handlers.held == 0)
                third = await opener(here, there, ECHO)
                assert await ask(third, b"unharmed") == b"unharmed"
                await third.aclose()

    async def test_cancelling_a_send_in_the_middle_harms_only_that_stream(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                # Nobody reads the echo, so the send must block in its middle.
                stream = await opener(here, there, ECHO)
                with trio.move_on_after(1.0) as scope:
                    while True:
                        await stream.send_all(bytes(1 << 20))
                assert scope.cancelled_caught
                await stream.aclose()
                other = await opener(here, there, ECHO)
                assert await ask(other, b"unharmed") == b"unharmed"
                await other.aclose()

    async def test_broken_stream_is_unreachable_for_the_survivor(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                first, second, third = swarm.networks
                # The opener loses the server...
                outgoing = await opener(first, third, HOLD)
                assert await outgoing.receive_some(1) == b"!"
                incoming = await opener(third, second, HOLD)  # ...and the server loses the opener.
                assert await incoming.receive_some(1) == b"!"
                await swarm.kill(2)
                with trio.fail_after(LOSS_NOTICED_S), pytest.raises(Unreachable):
                    await receive_all(outgoing)
                with pytest.raises(Unreachable):
                    await send_without_end(outgoing)
                with trio.fail_after(LOSS_NOTICED_S):
                    await handlers.broken.wait()
                await outgoing.aclose()
                alive = await opener(first, second, ECHO)
                assert await ask(alive, b"we go on") == b"we go on"
                await alive.aclose()

    async def test_number_of_streams_a_peer_may_hold_is_bounded(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        refused = 0
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                streams: list[ByteStream] = []
                for _ in range(MAX_STREAMS_PER_PEER + 4):
                    try:
                        stream = await here.open_stream(there.peer, HOLD)
                        streams.append(stream)
                        if await stream.receive_some(1) == b"":
                            refused += 1
                    except Unreachable:
                        refused += 1
                assert refused >= 4
                assert handlers.most_held <= MAX_STREAMS_PER_PEER
                assert there.refusals().get("busy", 0) >= 4
                for stream in streams:
                    await stream.aclose()
                await eventually(lambda: handlers.held == 0)
                again = await here.open_stream(there.peer, ECHO)
                assert await ask(again, b"room again") == b"room again"
                await again.aclose()

    async def test_unknown_peer_is_unreachable(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                with pytest.raises(Unreachable):
                    await swarm.networks[0].open_stream(
                        Signer(b"nobody has this key of 32 bytes!").peer, ECHO
                    )

    async def test_traffic_is_counted_per_plane(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                before = here.traffic()
                stream = await open_control(here, there, ECHO)
                await ask(stream, bytes(10_000))
                await stream.aclose()
                between = here.traffic()
                assert between.control_sent - before.control_sent >= 10_000
                assert between.control_received - before.control_received >= 10_000
                assert between.bulk_sent == before.bulk_sent
                bulk = await open_admitted_bulk(here, there, ECHO)
                await ask(bulk, bytes(20_000))
                await bulk.aclose()
                after = here.traffic()
                assert after.bulk_sent - between.bulk_sent >= 20_000
                assert after.bulk_received - between.bulk_received >= 20_000
                assert there.traffic().bulk_received >= 20_000
