"""What every `Network` must do, whoever implements it.

The fake and the real one run exactly these tests.

A test module subclasses `NetworkSuite`, and gives a fixture `make_swarm` that returns a
`SwarmFactory`. The suite measures no time and sleeps only while it polls a counter that has no
event; it works in virtual time and on loopback alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec
import pytest
import trio

from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, Signer
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import MAX_GOSSIP_BYTES, MAX_STREAMS_PER_PEER, Network, Subscription

ECHO = "/hypergpu/test/echo/1"
HOLD = "/hypergpu/test/hold/1"
FAULT = "/hypergpu/test/fault/1"
TOPIC = "hypergpu/test"
# Far above what anything here takes, connecting several real hosts on a busy machine included.
PATIENCE_S = 60.0
# What the port's users count on: a peer that is gone is reported within this.
LOSS_NOTICED_S = 15.0
SIZES = (0, 1, 2, 1000, 65_535, 65_536, 65_537, 1_000_003)


class Swarm:
    """Networks that are started and connected to each other; `kill(i)` ends number i as if its
    process died: no goodbye.
    """

    def __init__(self, networks: Sequence[Network], kill: Callable[[int], Awaitable[None]]) -> None:
        self.networks = networks
        self.kill = kill


class SwarmFactory(Protocol):
    """`prepare(network, index)` is called for each network before it starts, to register handlers
    and subscriptions.

    Entering waits until every network has a link to every other one. Leaving stops them all, those
    killed in between included.
    """

    def __call__(
        self, count: int, prepare: Callable[[Network, int], None] = ...
    ) -> AbstractAsyncContextManager[Swarm]: ...


async def receive_all(stream: ByteStream, *, at_most: int = 1 << 16) -> bytes:
    """Everything up to the other side's end, read in pieces of `at_most` bytes, each of which has a
    legal size.
    """
    received = bytearray()
    while piece := await stream.receive_some(at_most):
        assert len(piece) <= at_most
        received += piece
    return bytes(received)


async def echo(stream: ByteStream) -> None:
    """A handler: sends back what arrives, then ends."""
    while piece := await stream.receive_some(1 << 16):
        await stream.send_all(piece)
    await stream.send_eof()


async def ask(stream: ByteStream, data: bytes) -> bytes:
    """Send `data` and its end while reading the answer: works for any size, whatever the buffers
    between.
    """
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        return await receive_all(stream)


async def send_without_end(stream: ByteStream) -> None:
    """A broken stream must say so, if not on the first send (TCP learns it from the answer) then
    soon.
    """
    while True:
        await stream.send_all(bytes(65_536))


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait for a counter that nobody announces."""
    while not is_so():
        await trio.sleep(0.01)


def pattern(size: int, salt: int = 0) -> bytes:
    """Bytes in which every shift shows."""
    return bytes((i * 131 + (i >> 8) * 17 + salt) & 0xFF for i in range(min(size, 8192))) * (
        size // 8192 + 1
    )


class Handlers:
    """What the tests serve on every network: an echo, a handler that holds, one that accuses.

    Records who came.
    """

    def __init__(self) -> None:
        self.came: list[tuple[int, PeerId]] = []
        self.held = 0
        self.most_held = 0
        self.arrived = trio.Event()
        self.broken = trio.Event()
        self.subscriptions: dict[int, Subscription] = {}
        self.offered: list[tuple[int, PeerId, bytes]] = []

    def prepare(self, network: Network, index: int) -> None:
        async def recorded_echo(stream: ByteStream) -> None:
            self.came.append((index, stream.peer))
            await echo(stream)

        async def hold(stream: ByteStream) -> None:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            self.arrived.set()
            try:
                await stream.send_all(b"!")
                await receive_all(stream)
            except Unreachable:
                self.broken.set()
                raise
            finally:
                self.held -= 1

        async def fault(stream: ByteStream) -> None:
            await stream.receive_some(1)
            raise PeerFault("malformed", "the test's own accusation")

        def accept(signer: PeerId, data: bytes) -> bool:
            self.offered.append((index, signer, data))
            return not data.startswith(b"bad")

        for register in (network.serve, network.serve_bulk):
            register(ECHO, recorded_echo)
            register(HOLD, hold)
            register(FAULT, fault)
        self.subscriptions[index] = network.subscribe(TOPIC, accept)


Opener = Callable[[Network, Network, str], Awaitable[ByteStream]]


async def open_control(here: Network, there: Network, protocol: str) -> ByteStream:
    return await here.open_stream(there.peer, protocol)


async def open_admitted_bulk(here: Network, there: Network, protocol: str) -> ByteStream:
    there.admit(here.endpoint)
    return await here.open_bulk(there.endpoint, protocol)


async def must_fail(opening: Callable[[], Awaitable[ByteStream]]) -> None:
    """The stream does not open, or breaks before one byte comes back (TLS 1.3 clients finish before
    the server has judged them).
    """
    with pytest.raises(Unreachable):  # noqa: PT012 (any of these may be the one that says no)
        stream = await opening()
        try:
            await stream.send_all(b"?")
            assert await stream.receive_some(1) != b"", "a refused stream ended cleanly"
            pytest.fail("a refused stream answered")
        finally:
            await stream.aclose()


def another_certificate(endpoint: Endpoint) -> Endpoint:
    """The same place with one bit of the certificate's signature turned: still DER, not the one
    pinned.
    """
    certificate = bytearray(endpoint.certificate)
    certificate[-1] ^= 1
    return msgspec.structs.replace(endpoint, certificate=bytes(certificate))


class NetworkSuite:
    """Inherit, provide `make_swarm`."""

    # ---------------------------------------------------------------------------------------- streams, both planes

    @pytest.fixture(params=[open_control, open_admitted_bulk], ids=["control", "bulk"])
    def opener(self, request: pytest.FixtureRequest) -> Opener:
        opener: Opener = request.param
        return opener

    async def test_bytes_arrive_whole_and_in_order_for_any_size(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
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
        with trio.fail_after(PATIENCE_S):
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
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                stream = await opener(here, there, HOLD)
                assert await stream.receive_some(10) == b"!"
                assert handlers.held == 1
                # The handler reads its end, and ends its own side.
                await stream.send_eof()
                assert await stream.receive_some(10) == b""
                assert await stream.receive_some(10) == b"", "the end is the end for good"
                await eventually(lambda: handlers.held == 0)
                await stream.aclose()

    async def test_streams_run_side_by_side(self, make_swarm: SwarmFactory, opener: Opener) -> None:
        handlers = Handlers()
        answers: dict[int, bytes] = {}
        with trio.fail_after(PATIENCE_S):
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

    async def test_one_stream_that_nobody_reads_blocks_itself_alone(
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

        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, prepare) as swarm, trio.open_nursery() as nursery:
                here, there = swarm.networks
                stuck = await opener(here, there, "/hypergpu/test/deaf/1")
                blocked = trio.Event()

                async def flood() -> None:
                    with trio.CancelScope() as scope:
                        while True:
                            with trio.move_on_after(2.0) as patience:
                                await stuck.send_all(bytes(1 << 20))
                            if patience.cancelled_caught:
                                blocked.set()
                                scope.cancel()

                nursery.start_soon(flood)
                # Back-pressure reached the sender: nothing in between grows for ever.
                await blocked.wait()
                stream = await opener(here, there, ECHO)
                assert await ask(stream, b"still here") == b"still here"
                await stream.aclose()
                await stuck.aclose()

    async def test_unknown_protocol_is_unreachable(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                await must_fail(lambda: opener(here, there, "/hypergpu/test/nobody-serves-this/1"))
                stream = await opener(here, there, ECHO)
                assert await ask(stream, b"fine") == b"fine"
                await stream.aclose()

    async def test_handler_that_accuses_loses_its_stream_alone(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                other = await opener(here, there, HOLD)
                assert await other.receive_some(1) == b"!"
                stream = await opener(here, there, FAULT)
                try:
                    await stream.send_all(b"x")
                    assert await receive_all(stream) == b""
                except Unreachable:
                    pass  # closed or broken: either way it is over
                await stream.aclose()
                assert handlers.held == 1, "the other stream was touched"
                await other.send_eof()
                assert await receive_all(other) == b""
                await other.aclose()

    async def test_closing_is_safe_twice_and_under_cancellation(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
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
                await eventually(lambda: handlers.held == 0)  # the other side noticed both
                third = await opener(here, there, ECHO)
                assert await ask(third, b"unharmed") == b"unharmed"
                await third.aclose()

    async def test_cancelling_a_send_in_the_middle_harms_only_that_stream(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                here, there = swarm.networks
                # Nobody reads the echo: the send must block in its middle.
                stream = await opener(here, there, ECHO)
                with trio.move_on_after(1.0) as scope:
                    while True:
                        await stream.send_all(bytes(1 << 20))
                assert scope.cancelled_caught
                await stream.aclose()
                other = await opener(here, there, ECHO)
                assert await ask(other, b"unharmed") == b"unharmed"
                await other.aclose()

    async def test_broken_stream_is_unreachable_for_who_survives(
        self, make_swarm: SwarmFactory, opener: Opener
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                first, second, third = swarm.networks
                # The one who opened it loses the one who served it.
                outgoing = await opener(first, third, HOLD)
                assert await outgoing.receive_some(1) == b"!"
                incoming = await opener(third, second, HOLD)  # and the other way round
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
        with trio.fail_after(PATIENCE_S):
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
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                with pytest.raises(Unreachable):
                    await swarm.networks[0].open_stream(
                        Signer(b"nobody has this key of 32 bytes!").peer, ECHO
                    )

    async def test_traffic_is_counted_per_plane(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
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

    # ---------------------------------------------------------------------------------------- who gets into the bulk plane

    async def test_bulk_takes_only_who_was_admitted(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                friend, stranger, server = swarm.networks
                server.admit(friend.endpoint)
                await must_fail(lambda: stranger.open_bulk(server.endpoint, ECHO))
                await eventually(lambda: server.refusals().get("tls", 0) >= 1)
                stream = await friend.open_bulk(server.endpoint, ECHO)
                assert await ask(stream, b"in") == b"in"
                await stream.aclose()
                assert {came for _, came in handlers.came} == {friend.peer}

    async def test_admission_goes_by_the_exact_certificate_and_the_last_one_counts(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                client, server = swarm.networks
                server.admit(client.endpoint)
                server.admit(another_certificate(client.endpoint))
                await must_fail(lambda: client.open_bulk(server.endpoint, ECHO))
                server.admit(client.endpoint)
                stream = await client.open_bulk(server.endpoint, ECHO)
                assert await ask(stream, b"in") == b"in"
                await stream.aclose()

    async def test_bulk_server_must_show_the_certificate_we_know(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                client, server, other = swarm.networks
                server.admit(client.endpoint)
                impostor = msgspec.structs.replace(
                    server.endpoint, certificate=other.endpoint.certificate
                )
                await must_fail(lambda: client.open_bulk(impostor, ECHO))
                await eventually(
                    lambda: (
                        server.refusals().get("tls", 0) + server.refusals().get("handshake", 0) >= 1
                    )
                )
                assert handlers.came == []

    async def test_bulk_where_nobody_listens_is_unreachable(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                nowhere = msgspec.structs.replace(
                    swarm.networks[1].endpoint, hosts=("127.0.0.1",), port=1
                )
                with pytest.raises(Unreachable):
                    await swarm.networks[0].open_bulk(nowhere, ECHO)

    # ---------------------------------------------------------------------------------------- gossip

    async def test_gossip_reaches_everybody_else_with_its_signer(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        count = 5
        got: dict[int, set[tuple[PeerId, bytes]]] = {index: set() for index in range(count)}
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(count, handlers.prepare) as swarm, trio.open_nursery() as nursery:
                said = {
                    (network.peer, b"from %d" % index)
                    for index, network in enumerate(swarm.networks)
                }
                done = {index: trio.Event() for index in range(count)}

                async def listen(index: int) -> None:
                    own = swarm.networks[index].peer
                    async for signer, data in handlers.subscriptions[index]:
                        assert (signer, data) not in got[index], "delivered twice"
                        got[index].add((signer, data))
                        if got[index] == {(peer, words) for peer, words in said if peer != own}:
                            done[index].set()

                for index in range(count):
                    nursery.start_soon(listen, index)
                for index, network in enumerate(swarm.networks):
                    await network.publish(TOPIC, b"from %d" % index)
                for index in range(count):
                    await done[index].wait()
                nursery.cancel_scope.cancel()

    async def test_gossip_that_is_not_accepted_is_not_delivered(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                speaker = swarm.networks[0]
                await speaker.publish(TOPIC, b"bad news")
                await eventually(
                    lambda: (
                        {index for index, _, data in handlers.offered if data == b"bad news"}
                        == {1, 2}
                    )
                )
                await speaker.publish(TOPIC, b"good news")
                for index in (1, 2):
                    async for signer, data in handlers.subscriptions[index]:
                        assert (signer, data) == (speaker.peer, b"good news")
                        break
                assert {signer for _, signer, _ in handlers.offered} == {speaker.peer}

    async def test_gossip_that_nobody_reads_is_accepted_and_not_kept(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        heard: dict[int, list[bytes]] = {0: [], 1: []}
        unread: dict[int, Subscription] = {}

        def prepare(network: Network, index: int) -> None:
            handlers.prepare(network, index)

            def accept(_peer: PeerId, data: bytes) -> bool:
                heard[index].append(data)
                return True

            unread[index] = network.subscribe(f"{TOPIC}/unread", accept, keep=False)

        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, prepare) as swarm:
                await swarm.networks[0].publish(f"{TOPIC}/unread", b"news")
                await eventually(lambda: heard[1] == [b"news"])
                with trio.move_on_after(0.2) as nothing_waits:
                    async for _ in unread[1]:
                        break
                assert nothing_waits.cancelled_caught
                assert unread[1].dropped == 0

    async def test_large_gossip_passes_and_larger_never_raises(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        large = pattern(MAX_GOSSIP_BYTES // 2)[: MAX_GOSSIP_BYTES // 2]
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                await swarm.networks[0].publish(TOPIC, bytes(MAX_GOSSIP_BYTES + 1))
                await swarm.networks[0].publish(TOPIC, large)
                async for _, data in handlers.subscriptions[1]:
                    assert data == large, "what is above the limit must not arrive"
                    break

    async def test_slow_reader_loses_the_oldest_and_knows_how_many(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                said = 0
                subscription = handlers.subscriptions[1]
                while subscription.dropped == 0:
                    assert said < 100_000, "a queue that is never full has no bound"
                    await swarm.networks[0].publish(TOPIC, b"%d" % said)
                    said += 1
                    # paced by arrival, a few under way, so that the queue is what loses, not the
                    # swarm
                    with trio.move_on_after(2.0):
                        await eventually(lambda least=said - 8: len(handlers.offered) >= least)
                async for _, data in subscription:
                    assert int(data) >= 1, "the oldest should have been dropped"
                    break

    # ---------------------------------------------------------------------------------------- finding each other

    async def test_find_providers_finds_all_the_others(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        key = bytes(range(32))
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(5, handlers.prepare) as swarm:
                for network in swarm.networks[:4]:
                    await network.provide(key)
                everybody = {network.peer for network in swarm.networks[:4]}
                # Those that provide it themselves, and one that does not.
                for network in swarm.networks:
                    found: set[PeerId] = set()
                    while found != everybody - {network.peer}:
                        found = set(await network.find_providers(key)) - {network.peer}
                        assert found <= everybody
                        await trio.sleep(0.05)
                assert set(await swarm.networks[0].find_providers(bytes(32))) == set()

    async def test_links_say_who_is_connected(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(4, handlers.prepare) as swarm:
                for network in swarm.networks:
                    others = {other.peer for other in swarm.networks} - {network.peer}
                    assert {link.peer for link in network.links()} == others
                    assert len(network.links()) == len(others), "one link for each peer"
                    assert all(link.path in ("direct", "relayed") for link in network.links())
                    assert network.addresses
                    assert all(
                        address.endswith(f"/p2p/{network.peer}") for address in network.addresses
                    )
                    assert network.endpoint.peer == network.peer
                    # measured continuously, so sooner or later there is a measurement of each
                    await eventually(
                        lambda network=network: all(
                            (link.rtt_s or 0.0) > 0.0 for link in network.links()
                        )
                    )

    async def test_death_of_a_peer_is_reported_and_what_is_up_comes_first(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(PATIENCE_S):
            async with make_swarm(4, handlers.prepare) as swarm, trio.open_nursery() as nursery:
                ups: dict[int, set[PeerId]] = {0: set(), 1: set(), 2: set()}
                knows_all = {index: trio.Event() for index in ups}
                lost = {index: trio.Event() for index in ups}
                victim = swarm.networks[3].peer

                async def watch(index: int) -> None:
                    async for change in swarm.networks[index].changes():
                        assert change.reason
                        if change.up:
                            ups[index].add(change.peer)
                            if len(ups[index]) == 3:
                                knows_all[index].set()
                        elif change.peer == victim:
                            lost[index].set()

                for index in ups:
                    nursery.start_soon(watch, index)
                for event in knows_all.values():
                    await event.wait()
                await swarm.kill(3)
                with trio.fail_after(LOSS_NOTICED_S):
                    for event in lost.values():
                        await event.wait()
                for index in ups:
                    assert victim not in {link.peer for link in swarm.networks[index].links()}
                with pytest.raises(Unreachable):
                    await swarm.networks[0].open_stream(victim, ECHO)
                nursery.cancel_scope.cancel()
