"""A libp2p connection that is measured, bounded, and safe to cancel: yamux with our own writer.

What py-libp2p 0.8's yamux lacks, and how this class mends it:

- A cancelled write leaves half a Noise message on the wire and breaks the whole connection. Here
  one task writes, and the others wait for it.
- Its reader writes answers itself, so two full sockets stop both readers for ever. Here answers
  are queued.
- A peer that ignores its window grows our memory. Here a connection that holds more than
  `MAX_BUFFERED_BYTES` is closed. Where all connections together hold more than
  `unread_bytes.MAX_UNREAD_BYTES`, the one that holds most is closed.
- Streams that a peer opens are not counted. Here those above `MAX_STREAMS` are reset.
- The round-trip time is measured every 30 s, and a missing answer means nothing. Here a ping goes
  out every `PING_INTERVAL_S`, and silence ends the connection. Closing goes through the socket,
  since yamux's own close waits behind a write that is stuck.
- Every read of a stream gives its window back in a frame of its own. In a round, two frames in
  three are such frames. Here the window is given back by halves, as in go-yamux.
"""

from __future__ import annotations

import struct
from typing import Any

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    HEADER_SIZE,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from daemon.network.libp2p.frame_writer import FrameWriter
from daemon.network.libp2p.read_ahead_stream import ReadAheadStream
from daemon.network.libp2p.round_trips import RoundTrips
from daemon.network.libp2p.unread_bytes import UnreadBytes
from daemon.network.tcp_info import SegmentCounts
from protocol.network.reachability import PathKind
from protocol.ports.network import MAX_STREAMS_PER_PEER

PING_INTERVAL_S = 1.0
# Our streams in both directions, and libp2p's own.
MAX_STREAMS = 4 * MAX_STREAMS_PER_PEER
# The window of one stream: 10 MB/s over 100 ms, which is plenty for control.
MAX_WINDOW_BYTES = 1 << 20
# Unread bytes of one connection: each of our streams with a full window.
MAX_BUFFERED_BYTES = 32 << 20
# A connection that holds less need not look at what the others hold.
UNREAD_SHARE_BYTES = 1 << 19
# Go-yamux and we send 64 KB, rust-yamux 16 KB.
MAX_FRAME_BYTES = 1 << 20
# Until there are enough round trips: from the age of one second on, silence is noticed as early as
# on an old connection.
FIRST_INTERVAL_S = 0.5


class MeasuredYamux(Yamux):
    """A yamux connection that pings its peer and limits what the peer can make it hold.

    `lost` says why the connection was given up.
    """

    def __init__(
        self,
        secured_conn: ISecureConn,
        peer_id: ID,
        is_initiator: bool | None = None,
        unread_in_all: UnreadBytes | None = None,
    ) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=is_initiator)
        self._unread_in_all = unread_in_all or UnreadBytes()
        self._unread_in_all.watch(self)
        self._round_trips = RoundTrips()
        self.lost = ""
        self.refused_streams = 0
        self._socket = socket_below(secured_conn)
        self._writer = FrameWriter(self.secured_conn.write)

    @property
    def rtt_s(self) -> float | None:
        """The smoothed round-trip time; None before the first answer."""
        return self._round_trips.rtt_s

    @property
    def jitter_s(self) -> float | None:
        """How much recent round trips differ; None while they are few."""
        return self._round_trips.jitter_s

    @property
    def is_open(self) -> bool:
        """Whether the socket is still open on this side."""
        return not self._socket.closed.is_set()

    def segments(self) -> SegmentCounts:
        """What the kernel counted."""
        return self._socket.segments()

    async def cut(self, why: str) -> None:
        """End the connection now, whatever is in flight on it."""
        self.lost = self.lost or why
        await self._socket.cut()

    # ---------------------------------------------------------------------------------- writing

    async def _write_frame(self, data: bytes) -> None:
        if self.event_shutting_down.is_set():
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        # Data frames wait until they are written. Answers have a header alone.
        await self._writer.send(data, wait=len(data) > HEADER_SIZE)

    async def _write_loop(self) -> None:
        try:
            await self._writer.run()
        finally:
            with trio.CancelScope(shield=True):
                # Closing the socket waits for nothing.
                await self._socket.cut()

    # ---------------------------------------------------------------------------------- measuring

    async def _measure_rtt_loop(self) -> None:
        """Write and ping. The library starts this with the connection and cancels it at its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_loop)
            nursery.start_soon(self._ping_loop)

    async def _ping_loop(self) -> None:
        while not self.event_shutting_down.is_set():
            self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
            self._ping_event = trio.Event()
            # The library averages with the value it finds here. The smoothing is ours.
            self._rtt = 0.0
            sent_at = self._ping_sent_time = trio.current_time()
            self._writer.put(
                struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id)
            )
            answer_s = self._round_trips.answer_s()
            if not await self._answer_within(sent_at, answer_s):
                await self.cut(f"no sign of life for {answer_s:.0f} s")
                return
            self._round_trips.add(max(self._rtt, 1e-6))
            self._forget_ended_streams()
            trusted = self._round_trips.trusted
            await trio.sleep(PING_INTERVAL_S if trusted else FIRST_INTERVAL_S)

    async def _answer_within(self, sent_at: float, answer_s: float) -> bool:
        """Whether the answer comes in time.

        Anything else that arrives meanwhile, such as a large transfer, proves life too.
        """
        deadline = sent_at + answer_s
        while True:
            with trio.move_on_at(deadline):
                await self._ping_event.wait()
                return True
            alive_until = self._socket.received_at + answer_s
            if alive_until <= deadline:
                return False
            deadline = alive_until

    def _forget_ended_streams(self) -> None:
        """Remove events of ended streams from the library's table.

        A reader that wakes up after its stream's end puts its event back, and the library never
        removes that event.
        """
        for stream_id in self.stream_events.keys() - self.streams.keys():
            del self.stream_events[stream_id]

    # ---------------------------------------------------------------------------------- bounds

    async def open_stream(self) -> YamuxStream:
        return _bounded(await super().open_stream())

    async def accept_stream(self) -> YamuxStream:
        while True:
            stream: Any = await super().accept_stream()
            if len(self.streams) <= MAX_STREAMS:
                return _bounded(stream)
            self.refused_streams += 1
            await stream.reset()

    def unread(self) -> int:
        """Bytes that arrived and were not read."""
        return sum(map(len, self.stream_buffers.values()))

    @property
    def remote_host(self) -> str:
        """The address of the other side; empty over a relay."""
        return self._socket.remote_host

    @property
    def path(self) -> PathKind:
        """How the connection came about."""
        return self._socket.path

    async def _read_data_body(self, length: int) -> bytes:
        buffered = self.unread()
        if (
            buffered > UNREAD_SHARE_BYTES
            and (fullest := self._unread_in_all.connection_to_cut(length)) is not None
        ):
            await fullest.cut(
                f"it left {fullest.unread()} bytes unread "
                "while all connections held more than their share"
            )
            if fullest is self:
                raise trio.TooSlowError(self.lost)
        if length > MAX_FRAME_BYTES or buffered + length > MAX_BUFFERED_BYTES:
            await self.cut(f"it sent a frame of {length} bytes on top of {buffered} unread ones")
            # The one exception on which the library's reader ends the connection.
            raise trio.TooSlowError(self.lost)
        return await super()._read_data_body(length)


def _bounded(stream: YamuxStream) -> YamuxStream:
    """The stream with a bounded receive window that is given back by halves.

    The window stops growing at `MAX_WINDOW_BYTES`; the library's grows to 16 MB.
    """
    patched: Any = stream
    grow, give_back = stream._apply_autotune_epoch, stream._auto_tune_and_send_window_update

    async def give_back_halves(*, bytes_read: int = 0) -> None:
        unread = len(stream.conn.stream_buffers.get(stream.stream_id, b""))
        if (
            2 * (stream.target_recv_window - stream.recv_window - unread)
            >= stream.target_recv_window
        ):
            await give_back(bytes_read=bytes_read)

    patched._apply_autotune_epoch = lambda buffered: (
        grow(buffered) if stream.target_recv_window < MAX_WINDOW_BYTES else 0
    )
    patched._auto_tune_and_send_window_update = give_back_halves
    return stream


# The names that the library's layers give to the layer below them.
_BELOW = ("conn", "read_writer", "read_write_closer", "stream")


def socket_below(connection: Any) -> ReadAheadStream:
    """The TCP stream below the layers of a secured connection.

    Raises:
        TypeError: When the library's layers have changed.
    """
    for _ in range(10):
        if isinstance(connection, ReadAheadStream):
            return connection
        connection = next(
            (getattr(connection, name) for name in _BELOW if hasattr(connection, name)), None
        )
    raise TypeError("no TCP stream below a secured connection")
