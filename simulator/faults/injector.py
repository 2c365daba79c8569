"""`FaultInjector`: decides what happens to one node's messages.

They are lost, duplicated, delayed, damaged or replaced by lies. A link could never flip a bit of an
encrypted stream or replace a message in it. So damage is done before the stream seals the bytes: it
is what a broken or lying *peer* would send.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import trio

from daemon.services.training.native.exchange.bulk_headers import read_header
from daemon.swarm import messenger, state_transfer
from daemon.swarm.frames import LENGTH_BYTES
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Link, LinkChange, RelayUse, Source, Subscription, Traffic
from simulator.fakes.network import FakeNetwork
from simulator.faults.liar import Liar


class FaultInjector:
    """What one node's messages suffer at present. All shares are of messages; 0 is nothing."""

    def __init__(self, rng: random.Random) -> None:
        self.loss = 0.0
        self.duplication = 0.0
        self.reordering = 0.0
        self.late_s = 0.0
        self.corruption = 0.0
        self.liar: Liar | None = None
        self.rng = rng

    @property
    def idle(self) -> bool:
        return self.liar is None and not (
            self.loss or self.duplication or self.reordering or self.late_s or self.corruption
        )

    def happens(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    def damage(self, data: bytes, skip: int = 0) -> bytes:
        """Flip one bit somewhere after the first `skip` bytes."""
        if len(data) <= skip:
            return data
        damaged = bytearray(data)
        damaged[self.rng.randrange(skip, len(data))] ^= 1 << self.rng.randrange(8)
        return bytes(damaged)

    def suffer(self, frames: list[bytes], skip: int) -> list[bytes]:
        """Lose, duplicate and damage whole messages, each behind `skip` bytes of framing."""
        out: list[bytes] = []
        for data in frames:
            if self.happens(self.loss):
                continue
            out.append(self.damage(data, skip) if self.happens(self.corruption) else data)
            if self.happens(self.duplication):
                out.append(out[-1])
        return out


class _Stream:
    """A stream whose sending side is tampered with."""

    def __init__(self, inner: ByteStream, injector: FaultInjector) -> None:
        self._inner = inner
        self._injector = injector

    @property
    def peer(self) -> PeerId:
        return self._inner.peer

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._inner.send_all(data)

    async def receive_some(self, max_bytes: int) -> bytes:
        return await self._inner.receive_some(max_bytes)

    async def receive_into(self, target: memoryview) -> int:
        return await self._inner.receive_into(target)

    def unsent(self) -> int:
        return self._inner.unsent()

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Messages(_Stream):
    """A message stream. The messenger writes one frame at a time, and each frame is a message."""

    def __init__(self, inner: ByteStream, injector: FaultInjector) -> None:
        super().__init__(inner, injector)
        self._overtaken: list[bytes] = []

    async def send_all(self, data: bytes | memoryview) -> None:
        injector = self._injector
        if injector.idle and not self._overtaken:
            await self._inner.send_all(data)
            return
        frames = injector.liar.message(self.peer, bytes(data)) if injector.liar else [bytes(data)]
        frames = injector.suffer(frames, LENGTH_BYTES)
        if injector.late_s:
            await trio.sleep(injector.late_s * injector.rng.random())
        waiting, self._overtaken = self._overtaken, []
        if injector.happens(injector.reordering):
            self._overtaken, frames = frames, []
        for piece in [*frames, *waiting]:
            await self._inner.send_all(piece)


class _Parcels(_Stream):
    """A bulk stream: lies and damage apply to a framed header and its payload together.

    The bulk sender writes the header, then the payload in pieces.
    """

    def __init__(self, inner: ByteStream, injector: FaultInjector) -> None:
        super().__init__(inner, injector)
        self._header = b""
        self._payload = bytearray()
        self._missing = 0
        # Bytes of a parcel that began before the fault did.
        self._passing = 0

    async def send_all(self, data: bytes | memoryview) -> None:
        injector = self._injector
        if self._passing:
            self._passing -= len(data)
        elif self._missing:
            self._payload += data
            self._missing -= len(data)
            if not self._missing:
                await self._send_parcel()
            return
        else:
            header = read_header(bytes(data)[LENGTH_BYTES:])
            if not injector.idle:
                self._header, self._payload, self._missing = bytes(data), bytearray(), header.size
                if not header.size:
                    await self._send_parcel()
                return
            self._passing = header.size
        await self._inner.send_all(data)

    async def _send_parcel(self) -> None:
        injector = self._injector
        header, payload = self._header, bytes(self._payload)
        parcels = [(header, payload)]
        if injector.liar is not None:
            parcels = injector.liar.parcel(self.peer, header, payload)
        for framed, content in parcels:
            damaged = content and injector.happens(injector.corruption)
            await self._inner.send_all(framed)
            if content:
                await self._inner.send_all(injector.damage(content) if damaged else content)


class _Answers(_Stream):
    """The stream on which a node serves its state."""

    async def send_all(self, data: bytes | memoryview) -> None:
        injector = self._injector
        piece = bytes(data)
        if injector.liar is not None:
            piece = injector.liar.answer(piece)
        if injector.happens(injector.corruption):
            piece = injector.damage(piece, LENGTH_BYTES)
        await self._inner.send_all(piece)


class FaultyNetwork:
    """A `ports.Network` whose node is honest and does not know of its faults."""

    def __init__(
        self,
        inner: FakeNetwork,
        injector: FaultInjector,
        later: Callable[[float, Callable[[object], None], object], None],
    ) -> None:
        """`later(at, act, argument)` delays gossip, which has no stream that could be held up."""
        self.inner = inner
        self._injector = injector
        self._later = later

    @property
    def peer(self) -> PeerId:
        return self.inner.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.inner.addresses

    @property
    def endpoint(self) -> Endpoint:
        return self.inner.endpoint

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        stream = await self.inner.open_stream(peer, protocol)
        return _Messages(stream, self._injector) if protocol == messenger.PROTOCOL else stream

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        return _Parcels(await self.inner.open_bulk(endpoint, protocol), self._injector)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        if protocol != state_transfer.PROTOCOL:
            self.inner.serve(protocol, handler)
            return

        async def tampered(stream: ByteStream) -> None:
            await handler(_Answers(stream, self._injector))

        self.inner.serve(protocol, tampered)

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        self.inner.serve_bulk(protocol, handler)

    def unreachable(self) -> frozenset[PeerId]:
        return self.inner.unreachable()

    def relays(self) -> Mapping[PeerId, RelayUse]:
        return self.inner.relays()

    def admit(self, endpoint: Endpoint) -> None:
        self.inner.admit(endpoint)

    async def publish(self, topic: str, data: bytes) -> None:
        injector = self._injector
        if injector.idle:
            await self.inner.publish(topic, data)
            return
        messages = injector.liar.gossip(topic, data) if injector.liar else [data]
        for piece in injector.suffer(messages, 0):
            late_s = injector.late_s * injector.rng.random() + (
                injector.late_s if injector.happens(injector.reordering) else 0.0
            )
            if late_s:
                self._later(trio.current_time() + late_s, self._publish_late, (topic, piece))
            else:
                await self.inner.publish(topic, piece)
        for other, piece in injector.liar.spreads(topic) if injector.liar else ():
            await self.inner.publish(other, piece)

    def _publish_late(self, what: object) -> None:
        assert isinstance(what, tuple)
        topic, piece = what
        self.inner.publish_now(topic, piece)

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> Subscription:
        return self.inner.subscribe(topic, accept, keep=keep)

    async def provide(self, key: bytes) -> None:
        await self.inner.provide(key)

    async def find_providers(self, key: bytes) -> list[PeerId]:
        return await self.inner.find_providers(key)

    def links(self) -> Sequence[Link]:
        return self.inner.links()

    def source_of(self, peer: PeerId) -> Source:
        return self.inner.source_of(peer)

    def changes(self) -> AsyncIterator[LinkChange]:
        return self.inner.changes()

    def traffic(self) -> Traffic:
        return self.inner.traffic()

    def keep(self, peers: frozenset[PeerId]) -> None:
        self.inner.keep(peers)

    def refusals(self) -> Mapping[str, int]:
        return self.inner.refusals()
