"""The bulk lanes: one long-lived stream to each member, on which slices and results travel as
header and bytes.

A lane that breaks is opened again and sends everything of the current view once more; receivers
know what they have. The receiving side reads a header, and reads the bytes behind it only when the
exchange it belongs to is there and wants them: whoever is early waits, whoever is wrong is cut off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.link_meter import LinkMeter
from daemon.swarm.frames import FrameReader, frame
from daemon.system.trio_types import TaskStatus
from protocol.averaging.vector_layout import MAX_PARAMETERS
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.messages import UNREADABLE, Hash, Index, Signed
from protocol.ports import ByteStream, Endpoint, Network

PROTOCOL = "/hypergpu/bulk/1"
# A proof of 2 digests a level is 2 KB at most, a signed result 300 bytes.
HEADER_BYTES = 1 << 16
# A lane's patience: the other side may be about to admit our certificate.
RECONNECT_S = (0.1, 0.3, 1.0, 2.0, 4.0)


class SliceHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """The sender's contribution to one slice, with the digests that lead from its chunks to the
    digest in its offer.
    """

    plan: Hash
    slice: Index
    proof: Annotated[tuple[Hash, ...], Meta(max_length=64)]
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


class ResultHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """A reducer's signed `SliceResult`; the encoded mean follows."""

    result: Signed
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


class RowHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """A reducer's signed `RowSum`; the row's mean follows."""

    summed: Signed
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


BulkHeader = SliceHeader | ResultHeader | RowHeader
_decoder: msgspec.msgpack.Decoder[BulkHeader] = msgspec.msgpack.Decoder(BulkHeader)

# For a buffer of 4 MB to go out at 6 Mbit/s.
DRAIN_S = 5.0
LOOK_S = 0.02  # between looks at it

Find = Callable[[PeerId, Digest], Endpoint]
"""The endpoint of a peer with this fingerprint. Raises `Unreachable` while no beacon has brought it."""


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """Something to send: the framed header and the bytes behind it."""

    header: bytes
    payload: memoryview


def read_header(data: bytes) -> BulkHeader:
    """Raises `PeerFault("malformed")`."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a bulk header: {error}") from None


def parcel(header: BulkHeader, payload: memoryview) -> Parcel:
    return Parcel(header=frame(msgspec.msgpack.encode(header)), payload=payload)


class _Lane:
    def __init__(self, fingerprint: Digest) -> None:
        self.fingerprint = fingerprint
        self.parcels: list[Parcel] = []  # of the current view, sent and unsent
        self.sent = 0
        self.news = trio.Event()
        self.scope = trio.CancelScope()
        self.moving = False  # whether the meter counts on it
        self.moved = 0  # bytes since it began to
        self.began_s = 0.0


class BulkSender:
    """Lanes to the members of the current view."""

    def __init__(
        self,
        network: Network,
        find: Find,
        refuse: Callable[[str, PeerId, str], None],
        moved: Callable[[PeerId, int, float], None] = lambda _peer, _size_bytes, _seconds: None,
    ) -> None:
        """`moved` is told of a lane that has come to rest: to whom, bytes, seconds from its first
        until it was acknowledged.
        """
        self.meter = LinkMeter()
        self._moved = moved
        self._network = network
        self._find = find
        self._refuse = refuse
        self._lanes: dict[PeerId, _Lane] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def send(self, peer: PeerId, fingerprint: Digest, item: Parcel) -> None:
        """Queue a parcel of the current view for the endpoint with this fingerprint.

        What a view may send is bounded by its plan.
        """
        if self._nursery is None:
            # The node is stopping: a sum that was under way may end after the lanes did.
            return
        lane = self._lanes.get(peer)
        if lane is None or lane.fingerprint != fingerprint:
            lane = self._lanes[peer] = _Lane(fingerprint)
            self._nursery.start_soon(self._drive, peer, lane)
        lane.parcels.append(item)
        lane.news.set()

    def clear(self, *, failed: bool) -> None:
        """The view is over: forget what it wanted sent.

        A parcel on its way is finished, so that its stream stays usable.

        Not so when the view `failed`: its bytes may have reached somebody who never saw its plan
        and keeps them waiting for it, and with them all that comes behind them on that stream.
        (Seen with a leader that was stopped as it sent its plan: the round it came back to took 20
        s more.)
        """
        for peer, lane in list(self._lanes.items()):
            if failed and lane.parcels:
                del self._lanes[peer]
                lane.scope.cancel()
            lane.parcels.clear()
            lane.sent = 0

    def forget(self, peer: PeerId, item: Parcel) -> None:
        """A parcel that has arrived, as its receiver's answer shows, need not be sent again should
        its lane break.
        """
        lane = self._lanes.get(peer)
        place = (
            next((i for i, parcel in enumerate(lane.parcels[: lane.sent]) if parcel is item), None)
            if lane is not None
            else None
        )
        if lane is not None and place is not None:
            del lane.parcels[place]
            lane.sent -= 1

    async def _drive(self, peer: PeerId, lane: _Lane) -> None:
        with lane.scope:
            await self._drive_to_the_end(peer, lane)

    async def _drive_to_the_end(self, peer: PeerId, lane: _Lane) -> None:
        stream: ByteStream | None = None
        failures = 0
        try:
            while True:
                if lane.sent >= len(lane.parcels):
                    lane.news = trio.Event()
                    if stream is not None and lane.moving and stream.unsent():
                        # A socket's buffer may hold all of it: sent is what was acknowledged, as
                        # far as that can be told.
                        with trio.move_on_after(DRAIN_S):
                            while stream.unsent() and not lane.news.is_set():
                                await trio.sleep(LOOK_S)
                    if not lane.news.is_set():
                        self._rest(peer, lane)
                        await lane.news.wait()
                    continue
                if not lane.moving:
                    lane.moving, lane.began_s = True, trio.current_time()
                    self.meter.begin()
                item = lane.parcels[lane.sent]
                try:
                    if stream is None:
                        stream = await self._network.open_bulk(
                            self._find(peer, lane.fingerprint), PROTOCOL
                        )
                    await self._write(stream, item)
                except Unreachable as error:
                    if stream is not None:
                        await stream.aclose()
                    stream, lane.sent, failures = None, 0, failures + 1
                    if failures > len(RECONNECT_S):
                        self._refuse(
                            "timeout",
                            peer,
                            f"the bulk lane was given up after {failures} attempts: {error}",
                        )
                        return
                    await trio.sleep(RECONNECT_S[failures - 1])
                    continue
                failures = 0
                lane.moved += len(item.payload)
                if lane.sent < len(lane.parcels) and lane.parcels[lane.sent] is item:
                    lane.sent += 1
                # A lane that waits holds nothing of a view that is over.
                del item
        finally:
            self._rest(peer, lane)
            if self._lanes.get(peer) is lane:
                del self._lanes[peer]
            if stream is not None:
                await stream.aclose()

    def _rest(self, peer: PeerId, lane: _Lane) -> None:
        if lane.moving:
            self.meter.end(lane.moved)
            self._moved(peer, lane.moved, trio.current_time() - lane.began_s)
            lane.moving, lane.moved = False, 0

    @staticmethod
    async def _write(stream: ByteStream, item: Parcel) -> None:
        await stream.send_all(item.header)
        # The stream cuts it up, and can be cancelled between the pieces.
        await stream.send_all(item.payload)


class Intake:
    """One parcel that the current exchange wants: where its bytes go and what to do when they are
    there.
    """

    def __init__(
        self,
        size: int,
        finish: Callable[[memoryview], Awaitable[None]],
        memory: Callable[[], memoryview] | None = None,
    ) -> None:
        """`memory` gives `size` bytes, once they are about to come; without it they go into memory
        of nobody's.
        """
        self.size = size
        self.finish = finish
        self.memory = memory


Accept = Callable[[PeerId, BulkHeader], Awaitable[Intake]]
"""Waits until the exchange a header belongs to is there. Raises `PeerFault` for what it does not want."""


def serve_bulk_lanes(
    network: Network, accept: Accept, refuse: Callable[[str, PeerId, str], None], buffers: Buffers
) -> LinkMeter:
    """Take the lanes that others open to us, into `buffers`.

    What is refused is counted against its sender, and the lane is closed.

    Returns what measures them.
    """
    meter = LinkMeter()

    async def take(stream: ByteStream) -> None:
        try:
            await read(stream)
        except PeerFault as fault:
            refuse(fault.reason, stream.peer, str(fault))
            # The network closes the lane and need not count it again.
            raise Unreachable(f"refused: {fault}") from None

    async def read(stream: ByteStream) -> None:
        reader = FrameReader(stream)
        while (data := await reader.next_frame(HEADER_BYTES)) is not None:
            await read_parcel(stream.peer, reader, read_header(data))

    async def read_parcel(peer: PeerId, reader: FrameReader, header: BulkHeader) -> None:
        """In a function of its own: a lane that waits for the next header holds nothing of the last
        parcel.
        """
        intake = await accept(peer, header)
        if header.size != intake.size:
            raise PeerFault(
                "malformed", f"{header.size} bytes announced where {intake.size} belong"
            )
        data = buffers.take(intake.size) if intake.memory is None else intake.memory()
        moved = 0
        meter.begin()
        try:
            await reader.read_into(data)
            moved = intake.size
        finally:
            meter.end(moved)
        await intake.finish(data)

    network.serve_bulk(PROTOCOL, take)
    return meter
