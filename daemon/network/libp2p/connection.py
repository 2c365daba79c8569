"""A libp2p connection that is measured, bounded, and safe to cancel: yamux with our own writing,
pinging and limits.

What py-libp2p 0.8's yamux lacks, and where it is mended here:

- A cancelled write leaves half a Noise message on the wire and the whole connection broken: one task writes, the others wait for it.
- Its reader writes answers itself, so two full sockets stop both readers for ever: answers are queued, not waited for.
- A peer that ignores its window grows our memory: a connection holds at most `MAX_BUFFERED_BYTES`, or it is closed. All connections
  together hold at most `UNREAD_IN_ALL_BYTES`, or the one that holds most is closed.
- Streams a peer opens are not counted: above `MAX_STREAMS` they are reset.
- The round-trip time is measured every 30 s and a missing answer means nothing: here every `PING_INTERVAL_S`, and silence ends the
  connection. Closing it goes through the socket, since yamux's own close waits behind a write that is stuck.
- Every read of a stream gave its window back in a frame of its own, two of three frames of a round: here at half a window, as in go-yamux.
- Every message cost two reads of the socket, one for its two bytes of length: here the socket is read ahead.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from statistics import median
from typing import Any
from weakref import WeakSet

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import (
    FLAG_SYN,
    HEADER_SIZE,
    PROTOCOL_ID,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)
from libp2p.transport.upgrader import TransportUpgrader

from daemon.network.error_boundary import contain_errors
from daemon.network.tcp_info import SegmentCounts, segments
from protocol.ports.network import MAX_STREAMS_PER_PEER

_log = logging.getLogger(__name__)

PING_INTERVAL_S = 1.0
# While a connection is not trusted: a second after it was made, silence on it is noticed as on any
# other.
FIRST_INTERVAL_S = 0.5
# For an answer, least and most: silence is reported within 4 s, 5 s where round trips take 0.5 s,
# 10 s at worst.
PATIENCE_S = (3.0, 9.0)
# Least, once there was an answer at all: silence on a connection of a second's age is reported
# within 4.5 s.
YOUNG_PATIENCE_S = 4.0
# Of the slowest recent one: queues fill and machines get busy over seconds, and the round trips
# show it.
ROUND_TRIPS_OF_PATIENCE = 8
RECENT_ROUND_TRIPS = 12  # 12 s of them
# With fewer they count double, and with none an answer has the most time: a node that joins is busy
# connecting.
TRUSTED_ROUND_TRIPS = 3
# Weight of a new measurement; half of a change shows after three.
RTT_SMOOTHING = 0.25
# Both directions of ours, and libp2p's own.
MAX_STREAMS = 4 * MAX_STREAMS_PER_PEER
# Of one stream: 10 MB/s over 100 ms, which is plenty for control.
MAX_WINDOW_BYTES = 1 << 20
# Of one connection, unread: every stream of ours with a full window.
MAX_BUFFERED_BYTES = 32 << 20
# Of all connections: what is honest is read as it comes, so that this is a flood's share of the
# memory.
UNREAD_IN_ALL_BYTES = 96 << 20
# Of one connection, below which nobody adds up what the others hold.
UNREAD_SHARE_BYTES = 1 << 19
# Go-yamux and we send 64 KB, rust-yamux 16 KB.
MAX_FRAME_BYTES = 1 << 20
# Answers (12 bytes each) queued behind a stuck socket; then their writers wait.
MAX_QUEUED_FRAMES = 4096
# Small frames leave together, up to one Noise message.
COALESCED_BYTES = 1 << 16
# Of one connection: one Noise message, and with it the small ones of a turn.
READ_AHEAD_BYTES = 1 << 16


class ReadAheadStream(TrioTCPStream):
    """The TCP stream under a connection: reads ahead, knows when it last received, and can be cut."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self.received_at = trio.current_time()
        self.closed = trio.Event()
        self.heard = False  # whether the other side has sent anything
        self._ahead = memoryview(b"")

    async def read(self, n: int | None = None) -> bytes:
        """At most `n` bytes; empty at the end."""
        if self._ahead:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._ahead = memoryview(await super().read(READ_AHEAD_BYTES))
            self.received_at = trio.current_time()
        data, self._ahead = self._ahead[:n], self._ahead[len(self._ahead) if n is None else n :]
        return bytes(data)

    async def close(self) -> None:
        self.closed.set()
        await super().close()

    @property
    def remote_host(self) -> str:
        """The other side's address; empty when it is gone already."""
        try:
            remote = self.get_remote_address()
        except OSError:
            return ""
        return remote[0] if remote else ""

    def segments(self) -> SegmentCounts:
        """What the kernel counted."""
        return (
            segments(self.stream.socket)
            if isinstance(self.stream, trio.SocketStream)
            else SegmentCounts()
        )

    async def cut(self) -> None:
        """Close the socket now; every reader and writer above notices."""
        self.closed.set()
        await trio.aclose_forcefully(self.stream)


class _Frame:
    """A frame on its way out. `done` is set when it is written or never will be."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done = trio.Event()
        self.failed = False


class UnreadBytes:
    """What the connections of one host hold unread, all together."""

    def __init__(self, most: int = UNREAD_IN_ALL_BYTES) -> None:
        self._most = most
        self._connections: WeakSet[MeasuredYamux] = WeakSet()

    def watch(self, connection: MeasuredYamux) -> None:
        self._connections.add(connection)

    def too_much(self, coming: int) -> MeasuredYamux | None:
        """The connection that holds most, when `coming` bytes more are too many in all."""
        held = {
            one: one.unread() for one in self._connections if not one.event_shutting_down.is_set()
        }
        return (
            max(held, key=held.__getitem__)
            if held and sum(held.values()) + coming > self._most
            else None
        )


class MeasuredYamux(Yamux):
    """`rtt_s` is the smoothed round-trip time, None before the first answer; `lost` says why the
    connection was given up.
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
        self.rtt_s: float | None = None
        self._recent_s: deque[float] = deque(maxlen=RECENT_ROUND_TRIPS)
        self.lost = ""
        self.refused_streams = 0
        self._socket = _socket_of(secured_conn)
        self._queue: deque[_Frame] = deque()
        self._wake = trio.Event()
        self._dead = False

    @property
    def jitter_s(self) -> float | None:
        """The median distance of the last round trips from their median; None before there are
        enough.
        """
        if not self.trusted:
            return None
        middle = median(self._recent_s)
        return median(abs(one - middle) for one in self._recent_s)

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed its socket."""
        return not self._socket.closed.is_set()

    def segments(self) -> SegmentCounts:
        """What the kernel counted."""
        return self._socket.segments()

    async def cut(self, why: str) -> None:
        """End the connection now, whatever is in flight on it."""
        self.lost = self.lost or why
        await self._socket.cut()

    # ------------------------------------------------------------------------------------------------ writing

    async def _write_frame(self, data: bytes) -> None:
        """Data frames wait until they are written (back-pressure); answers only when very many wait
        before them.
        """
        if self._dead or self.event_shutting_down.is_set():
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        frame = _Frame(data)
        self._queue.append(frame)
        self._wake.set()
        if len(data) > HEADER_SIZE or len(self._queue) > MAX_QUEUED_FRAMES:
            await frame.done.wait()
            if frame.failed:
                raise ConnectionClosedError("the connection broke", transport="tcp")
        else:
            await trio.lowlevel.checkpoint()

    async def _write_loop(self) -> None:
        frames: list[_Frame] = []
        try:
            while True:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                frames = [self._queue.popleft()]
                size = len(frames[0].data)
                while self._queue and size + len(self._queue[0].data) <= COALESCED_BYTES:
                    frames.append(self._queue.popleft())
                    size += len(frames[-1].data)
                with contain_errors("writing to a connection") as written:
                    await self.secured_conn.write(b"".join(frame.data for frame in frames))
                if written.failed is not None:
                    return
                for frame in frames:
                    frame.done.set()
        finally:
            self._dead = True
            for frame in (*frames, *self._queue):
                frame.failed = not frame.done.is_set()
                frame.done.set()
            self._queue.clear()
            await self._cut_for_good()

    async def _cut_for_good(self) -> None:
        with trio.CancelScope(shield=True):
            await self._socket.cut()  # closes, waits for nobody

    # ------------------------------------------------------------------------------------------------ measuring

    async def _measure_rtt_loop(self) -> None:
        """The library starts this with the connection and cancels it at its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_loop)
            nursery.start_soon(self._ping_loop)

    async def _ping_loop(self) -> None:
        while not self.event_shutting_down.is_set():
            self._ping_id = (self._ping_id + 1) & 0xFFFFFFFF
            self._ping_event = trio.Event()
            # The library averages with what it finds here; the smoothing is ours.
            self._rtt = 0.0
            sent_at = self._ping_sent_time = trio.current_time()
            self._queue.append(
                _Frame(struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id))
            )
            self._wake.set()
            patience_s = self._patience_s()
            answered = await self._answer_within(sent_at, patience_s)
            if not answered:
                await self.cut(f"no sign of life for {patience_s:.0f} s")
                return
            measured = max(self._rtt, 1e-6)
            self._recent_s.append(measured)
            self.rtt_s = (
                measured
                if self.rtt_s is None
                else self.rtt_s + RTT_SMOOTHING * (measured - self.rtt_s)
            )
            self._forget_ended_streams()
            await trio.sleep(PING_INTERVAL_S if self.trusted else FIRST_INTERVAL_S)

    @property
    def trusted(self) -> bool:
        """Whether its round trips say how long an answer may take."""
        return len(self._recent_s) >= TRUSTED_ROUND_TRIPS

    def _patience_s(self) -> float:
        """How long an answer may take.

        A false alarm costs a round its member, a late one the round its time.
        """
        least, most = PATIENCE_S
        if not self._recent_s:
            return most
        slowest_s = ROUND_TRIPS_OF_PATIENCE * max(self._recent_s)
        return min(
            max(least, slowest_s) if self.trusted else max(YOUNG_PATIENCE_S, 2 * slowest_s), most
        )

    async def _answer_within(self, sent_at: float, patience_s: float) -> bool:
        """Whether the answer comes, given that anything that arrives in the meantime (a large
        transfer) proves life too.
        """
        deadline = sent_at + patience_s
        while True:
            with trio.move_on_at(deadline):
                await self._ping_event.wait()
                return True
            alive_until = self._socket.received_at + patience_s
            if alive_until <= deadline:
                return False
            deadline = alive_until

    def _forget_ended_streams(self) -> None:
        """A reader that wakes up after its stream's end puts its event back into the library's
        table, where nobody removes it.
        """
        for stream_id in self.stream_events.keys() - self.streams.keys():
            del self.stream_events[stream_id]

    # ------------------------------------------------------------------------------------------------ bounds

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
        """Bytes that came and were not read."""
        return sum(map(len, self.stream_buffers.values()))

    @property
    def remote_host(self) -> str:
        """The other side's address."""
        return self._socket.remote_host

    async def _read_data_body(self, length: int) -> bytes:
        buffered = self.unread()
        if (
            buffered > UNREAD_SHARE_BYTES
            and (fullest := self._unread_in_all.too_much(length)) is not None
        ):
            await fullest.cut(
                f"it left {fullest.unread()} bytes unread while all connections held more than their share"
            )
            if fullest is self:
                raise trio.TooSlowError(self.lost)
        if length > MAX_FRAME_BYTES or buffered + length > MAX_BUFFERED_BYTES:
            await self.cut(f"it sent a frame of {length} bytes on top of {buffered} unread ones")
            # The one exception on which the library's reader ends the connection.
            raise trio.TooSlowError(self.lost)
        return await super()._read_data_body(length)


def _bounded(stream: YamuxStream) -> YamuxStream:
    """The stream, with a receive window that stops growing at `MAX_WINDOW_BYTES` (the library's at
    16 MB) and is given back by halves.
    """
    grow, give_back = stream._apply_autotune_epoch, stream._auto_tune_and_send_window_update

    async def give_back_halves(*, bytes_read: int = 0) -> None:
        unread = len(stream.conn.stream_buffers.get(stream.stream_id, b""))
        if (
            2 * (stream.target_recv_window - stream.recv_window - unread)
            >= stream.target_recv_window
        ):
            await give_back(bytes_read=bytes_read)

    stream._apply_autotune_epoch = lambda buffered: (
        grow(buffered) if stream.target_recv_window < MAX_WINDOW_BYTES else 0
    )  # type: ignore[method-assign]
    stream._auto_tune_and_send_window_update = give_back_halves  # type: ignore[method-assign]
    return stream


# What the library's layers call the layer below them.
_BELOW = ("conn", "read_writer", "read_write_closer", "stream")


def _socket_of(connection: Any) -> ReadAheadStream:
    """The TCP stream below the layers of a secured connection.

    Raises `TypeError` when the library's layers have changed.
    """
    for _ in range(10):
        if isinstance(connection, ReadAheadStream):
            return connection
        connection = next(
            (getattr(connection, name) for name in _BELOW if hasattr(connection, name)), None
        )
    raise TypeError("no TCP stream below a secured connection")


class _Muxers(MuxerMultistream):
    """Negotiates yamux, and makes ours (the library makes its own class whatever it was given)."""

    unread_in_all: UnreadBytes

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = MeasuredYamux(conn, peer_id, conn.is_initiator, self.unread_in_all)
        return self._annotate_connection(muxed, conn, protocol)


class YamuxUpgrader(TransportUpgrader):
    """TCP to Noise to our yamux, and nothing else on offer."""

    def __init__(self, noise: Any, negotiate_timeout_s: int, unread_in_all: UnreadBytes) -> None:
        super().__init__({"/noise": noise}, {}, negotiate_timeout_s)  # type: ignore[dict-item]
        muxers = _Muxers({PROTOCOL_ID: MeasuredYamux}, negotiate_timeout_s)  # type: ignore[dict-item]
        muxers.unread_in_all = unread_in_all
        self.muxer_multistream = muxers
