"""What the suite of `Network` needs: networks, handlers, and ways to open streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec
import pytest
import trio

from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Network, Subscription

ECHO = "/hypergpu/test/echo/1"
HOLD = "/hypergpu/test/hold/1"
FAULT = "/hypergpu/test/fault/1"
TOPIC = "hypergpu/test"
# Far above the time of anything here, even connecting several real hosts on a busy machine.
TIMEOUT_S = 60.0
# The port promises that the loss of a peer is reported within this time.
LOSS_NOTICED_S = 15.0
SIZES = (0, 1, 2, 1000, 65_535, 65_536, 65_537, 1_000_003)


class Swarm:
    """Started networks that are connected to each other.

    `kill(i)` ends number i as the death of its process would, without a goodbye.
    """

    def __init__(self, networks: Sequence[Network], kill: Callable[[int], Awaitable[None]]) -> None:
        self.networks = networks
        self.kill = kill


class SwarmFactory(Protocol):
    """Makes a swarm.

    `prepare(network, index)` is called for each network before it starts, to register handlers and
    subscriptions. Entering waits until every network has a link to every other one. Leaving stops
    all networks, the killed ones too.
    """

    def __call__(
        self, count: int, prepare: Callable[[Network, int], None] = ...
    ) -> AbstractAsyncContextManager[Swarm]: ...


async def receive_all(stream: ByteStream, *, at_most: int = 1 << 16) -> bytes:
    """Everything up to the other side's end, read in pieces of at most `at_most` bytes."""
    received = bytearray()
    while piece := await stream.receive_some(at_most):
        assert len(piece) <= at_most
        received += piece
    return bytes(received)


async def echo(stream: ByteStream) -> None:
    """A handler that sends back what arrives, then ends."""
    while piece := await stream.receive_some(1 << 16):
        await stream.send_all(piece)
    await stream.send_eof()


async def ask(stream: ByteStream, data: bytes) -> bytes:
    """Send `data` and its end while reading the answer: works for any size and any buffers."""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        return await receive_all(stream)


async def send_without_end(stream: ByteStream) -> None:
    """Send until the broken stream fails: TCP learns of the break from the first answer."""
    while True:
        await stream.send_all(bytes(65_536))


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait for a counter that has no event."""
    while not is_so():
        await trio.sleep(0.01)


def pattern(size: int, salt: int = 0) -> bytes:
    """Bytes in which every shift shows."""
    return bytes((i * 131 + (i >> 8) * 17 + salt) & 0xFF for i in range(min(size, 8192))) * (
        size // 8192 + 1
    )


class Handlers:
    """What the tests serve on every network: an echo, a handler that holds, and one that accuses.

    It records who connected.
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
    """Check that the stream does not open, or breaks before one byte comes back.

    TLS 1.3 clients finish before the server has judged them.
    """
    with pytest.raises(Unreachable):  # noqa: PT012
        stream = await opening()
        try:
            await stream.send_all(b"?")
            assert await stream.receive_some(1) != b"", "a refused stream ended cleanly"
            pytest.fail("a refused stream answered")
        finally:
            await stream.aclose()


def another_certificate(endpoint: Endpoint) -> Endpoint:
    """The same endpoint with one bit of the certificate's signature flipped.

    The certificate is still DER, but not the pinned one.
    """
    certificate = bytearray(endpoint.certificate)
    certificate[-1] ^= 1
    return msgspec.structs.replace(endpoint, certificate=bytes(certificate))
