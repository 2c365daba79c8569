"""A client's streams to stages: one to each stage, which all its generations share."""

from __future__ import annotations

import itertools

import msgspec
import trio

from daemon.services.inference.stage_server import STEPS_PROTOCOL
from daemon.swarm.frames import FrameReader, frame
from daemon.system.trio_types import TaskStatus
from protocol.errors import OurFault, PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.inference.messages import StageReply, StageRequest, decode_reply, encode
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

FORGETTING = 0.95
"""How much of the longest step's time remains with each later step: a tenth after 45."""


class _Waiter:
    """One request that waits for its reply."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.reply: StageReply | None = None


class _Connection:
    """One open stream to a stage."""

    def __init__(self, stream: ByteStream, max_bytes: int) -> None:
        self.stream = stream
        self.broken = ""
        self._reader = FrameReader(stream)
        self._max_bytes = max_bytes
        self._sending = trio.Lock()
        self._waiters: dict[int, _Waiter] = {}
        self._reading = trio.CancelScope()

    async def ask(self, request: StageRequest) -> StageReply:
        """Send a request and wait for its reply.

        Raises `Unreachable` when the stream breaks.
        """
        waiter = self._waiters[request.number] = _Waiter()
        try:
            async with self._sending:
                whole = False
                try:
                    await self.stream.send_all(frame(encode(request)))
                    whole = True
                except Unreachable as error:
                    self.fail(str(error))
                finally:
                    if not whole:
                        # A part of a frame may be on its way: nothing can follow it.
                        self.fail("a request was not sent whole")
            if not self.broken:
                await waiter.done.wait()
        finally:
            self._waiters.pop(request.number, None)
        if waiter.reply is None:
            raise Unreachable(self.broken)
        return waiter.reply

    async def read(self) -> None:
        """Give each reply to its request, until the stream ends."""
        try:
            with self._reading:
                await self._read()
        except (Unreachable, PeerFault) as error:
            self.fail(str(error))
        finally:
            self.fail("the client is closing")
            await self.stream.aclose()

    async def _read(self) -> None:
        while not self.broken:
            data = await self._reader.next_frame(self._max_bytes)
            if data is None:
                self.fail("the stage closed the stream")
                return
            reply = decode_reply(data)
            waiter = self._waiters.get(reply.number)
            # A reply whose request was given up is late, not wrong.
            if waiter is not None:
                waiter.reply = reply
                waiter.done.set()

    def fail(self, why: str) -> None:
        """Break the connection for all requests, and end `read`. The first reason counts."""
        self.broken = self.broken or why
        self._reading.cancel()
        for waiter in self._waiters.values():
            waiter.done.set()


class StageConnections:
    """Sends requests to stages, and gives each its reply."""

    def __init__(self, network: Network, max_bytes: int) -> None:
        self._network, self._max_bytes = network, max_bytes
        self._open: dict[PeerId, _Connection] = {}
        self._opening: dict[PeerId, trio.Lock] = {}
        self._numbers = itertools.count(1)
        self._typical_s: dict[PeerId, float] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read replies, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def note_time(self, peer: PeerId, seconds: float) -> None:
        """Note how long a step took, with its wait for the steps of others."""
        self._typical_s[peer] = max(seconds, FORGETTING * self._typical_s.get(peer, 0.0))

    def typical_s(self, peer: PeerId) -> float:
        """The longest of the last steps of a stage; 0 where none is known."""
        return self._typical_s.get(peer, 0.0)

    async def reach(self, peer: PeerId) -> None:
        """Open the stream to a stage where none is open. Raises `Unreachable`."""
        await self._connection(peer)

    async def ask(self, peer: PeerId, request: StageRequest) -> StageReply:
        """Send a request, whose number this method sets, and wait for the reply.

        Raises:
            Unreachable: the stage cannot be reached, or the stream broke.
        """
        numbered = msgspec.structs.replace(request, number=next(self._numbers))
        connection = await self._connection(peer)
        try:
            return await connection.ask(numbered)
        except Unreachable:
            if self._open.get(peer) is connection:
                del self._open[peer]
            raise

    async def _connection(self, peer: PeerId) -> _Connection:
        known = self._open.get(peer)
        if known is not None and not known.broken:
            return known
        async with self._opening.setdefault(peer, trio.Lock()):
            known = self._open.get(peer)
            if known is not None and not known.broken:
                return known
            if self._nursery is None:
                raise OurFault("connections to stages are used before `run`")
            stream = await self._network.open_stream(peer, STEPS_PROTOCOL)
            made = self._open[peer] = _Connection(stream, self._max_bytes)
            self._nursery.start_soon(made.read)
            return made
