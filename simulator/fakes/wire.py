"""One connection between two made-up nodes, and the byte streams on it.

Everything that crosses a wire is a *piece*: a size, an act and its argument. A piece takes its turn
in the pipes on the way, flies, and is done at the other end in the order it was sent. Where the way
is cut (a partition, a stopped process) what lands is held back, as TCP would go on sending it; when
the way opens again it is done, unless an end gave the connection up in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from protocol.errors import Unreachable
from protocol.identity import PeerId

if TYPE_CHECKING:
    from simulator.fakes.network import FakeNetwork
    from simulator.fakes.swarm import FakeSwarm

# yamux: what a stream may have under way before the reader has taken it.
CONTROL_WINDOW = 256 << 10
# Linux's default limit for a TCP connection's receive buffer is 6 MB.
BULK_WINDOW = 4 << 20
CONTROL_PIECE = 64 << 10  # what the real network writes at once
# Four TLS writes; fewer pieces, fewer events.
BULK_PIECE = 256 << 10
# A yamux frame without data: opening, acknowledging, closing, window updates.
HEADER_BYTES = 12


class FakeConnection:
    """A connection.

    Each of its two ends is up or not by itself: one may not know yet that the other is gone.
    """

    __slots__ = (
        "cut",
        "ends",
        "flushing",
        "generation",
        "held",
        "is_link",
        "last_landing",
        "last_leaving",
        "since_s",
        "streams",
        "swarm",
        "up",
    )

    def __init__(
        self, swarm: FakeSwarm, ends: tuple[FakeNetwork, FakeNetwork], *, is_link: bool
    ) -> None:
        self.swarm = swarm
        self.ends = ends
        # The lasting control connection; otherwise one bulk stream's own.
        self.is_link = is_link
        self.since_s = trio.current_time()
        self.up = [True, True]
        self.streams: tuple[dict[FakeStream, None], dict[FakeStream, None]] = ({}, {})
        self.last_landing = [0.0, 0.0]  # at each side
        self.last_leaving = [0.0, 0.0]  # from each side
        self.held: list[tuple[int, Callable[[Any], None], Any]] = []
        self.cut = False
        self.flushing = False
        # Of cuts: a ping that timed out for an earlier one means nothing.
        self.generation = 0

    def send(self, side: int, size: int, act: Callable[[Any], None], argument: Any) -> float:
        """Have `act(argument)` done at the other side; returns when it lands if nothing is cut
        until then.
        """
        other = 1 - side
        self.last_leaving[side], landing = self.swarm.transit(
            self.ends[side], self.ends[other], size
        )
        if landing < self.last_landing[other]:
            landing = self.last_landing[other]
        else:
            self.last_landing[other] = landing
        if self.up[side]:
            self.swarm.schedule.at(landing, self._land, (other, act, argument))
        return landing

    def _land(self, piece: tuple[int, Callable[[Any], None], Any]) -> None:
        side, act, argument = piece
        if not self.up[side]:
            return
        if self.cut or self.flushing:
            self.held.append(piece)
        else:
            act(argument)

    def set_cut(self, cut: bool) -> None:
        """The way between the ends is cut, or open again."""
        if cut == self.cut:
            return
        self.cut = cut
        self.generation += 1
        if cut:
            for side in (0, 1):
                self.swarm.schedule.at(
                    self.swarm.ping_deadline(), self._ping_unanswered, (side, self.generation)
                )
        elif self.held:
            # What was lost on the way is sent again: it lands after one more flight, ahead of
            # everything sent since.
            self.flushing = True
            latency = max(
                self.swarm.latency(self.ends[0], self.ends[1]),
                self.swarm.latency(self.ends[1], self.ends[0]),
            )
            self.swarm.schedule.at(trio.current_time() + latency, self._flush, self.generation)

    def _flush(self, generation: int) -> None:
        if generation != self.generation:
            return  # cut again before it landed
        self.flushing = False
        held, self.held = self.held, []
        for piece in held:
            self._land(piece)

    def _ping_unanswered(self, timeout: tuple[int, int]) -> None:
        side, generation = timeout
        if self.cut and generation == self.generation and not self.ends[side].paused:
            self.give_up(side, "no answer to pings")

    def give_up(self, side: int, reason: str) -> None:
        """This side closes the connection; the other side learns it when a reset gets through."""
        if self.up[side]:
            self.send(side, HEADER_BYTES, self._reset, 1 - side)
            self.lose(side, reason)

    def retire(self, side: int) -> None:
        """This side is done with a connection of one stream; what it sent is still on its way."""
        self.up[side] = False
        if not any(self.up):
            self.swarm.forget(self)

    def retire_unused(self, side: int) -> None:
        """This side took no stream: where the wire was for that stream alone, it is done with."""
        if not self.is_link:
            self.retire(side)

    def _reset(self, side: int) -> None:
        self.lose(side, "the other side reset the connection")

    def lose(self, side: int, reason: str) -> None:
        """This side has lost the connection: its streams break, and its node is told."""
        if self.up[side]:
            self.up[side] = False
            for stream in list(self.streams[side]):
                stream.break_off(reason)
            self.streams[side].clear()
            if self.is_link:
                self.ends[side].link_lost(self, self.ends[1 - side].peer, reason)
        if not any(self.up):
            self.held.clear()
            self.swarm.forget(self)


class FakeStream:
    """One end of a byte stream, as `ports.ByteStream` promises it."""

    def __init__(self, wire: FakeConnection, side: int, protocol: str) -> None:
        self.wire = wire
        self.side = side
        self.protocol = protocol
        self.peer: PeerId = wire.ends[1 - side].peer
        self.other: FakeStream | None = None
        self.accepted = False
        self._node = wire.ends[side]
        self._window = CONTROL_WINDOW if wire.is_link else BULK_WINDOW
        self._piece = CONTROL_PIECE if wire.is_link else BULK_PIECE
        self._credit = self._window
        # The last piece is still on its way through a pipe.
        self._leaving = False
        # By the reader, not yet told to the sender.
        self._taken = 0
        self._buffer: deque[bytes] = deque()
        self._read = 0  # of the first piece in the buffer
        self._ended = False  # by the other side
        self._finished = False  # by us: no more is sent
        self.closed = False
        # The other side closed: what is sent now would reach nobody.
        self._deaf = False
        self._broken: str | None = None
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()
        wire.streams[side][self] = None

    # ------------------------------------------------------------------------------------------ the port

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_sending()
        view = memoryview(data).cast("B")
        start, size = 0, len(view)
        while start < size:
            # One piece at a time takes its place in the pipes: streams that share one take turns,
            # and a vote passes between slices.
            while self._credit <= 0 or self._leaving:
                await self._writable.park()
                self._check_sending()
            stop = min(size, start + self._piece, start + self._credit)
            self._credit -= stop - start
            self._node.count_sent(self.wire.is_link, stop - start)
            assert self.other is not None
            self.wire.send(self.side, stop - start, self.other.arrive, bytes(view[start:stop]))
            start = stop
            leaves = self.wire.last_leaving[self.side]
            if leaves > trio.current_time():
                self._leaving = True
                self.wire.swarm.schedule.at(leaves, self._left, None)

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._buffer:
            if self.closed:
                raise Unreachable("this side has closed the stream")
            if self._ended:
                return b""
            if self._broken is not None:
                raise Unreachable(self._broken)
            await self._readable.park()
        whole = self._buffer[0]
        piece = whole[self._read : self._read + max_bytes]
        self._read += len(piece)
        if self._read == len(whole):
            self._buffer.popleft()
            self._read = 0
        self._taken += len(piece)
        if self._taken >= self._window // 2 and not self._ended:
            assert self.other is not None
            self.wire.send(self.side, HEADER_BYTES, self.other.gain_credit, self._taken)
            self._taken = 0
        return piece

    async def receive_into(self, target: memoryview) -> int:
        piece = await self.receive_some(len(target))
        target[: len(piece)] = piece
        return len(piece)

    def unsent(self) -> int:
        # `send_all` returned when the last piece had left through the pipe, or nearly.
        return 0

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._broken is not None and not self._finished:
            raise Unreachable(self._broken)
        self._finish(closing=False)

    async def aclose(self) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ called by wire and node

    def close(self) -> None:
        """`aclose` without the ceremony: the other side reads what was sent and then the end, and
        may not send any more.
        """
        if not self.closed:
            self._finish(closing=True)
            self.closed = True
            self._buffer.clear()
            self.wire.streams[self.side].pop(self, None)
            self._wake()
            if not self.wire.is_link:
                self.wire.retire(self.side)

    def reset(self, reason: str) -> None:
        """Close so that the other side gets `Unreachable`, not an end."""
        if not self.closed and self._broken is None and self.other is not None:
            self.wire.send(self.side, HEADER_BYTES, self.other.break_off, reason)
            self._finished = True
        self.close()

    def break_off(self, reason: str) -> None:
        """The stream is over from outside. What arrived before can still be read."""
        if self._broken is None and not self.closed:
            self._broken = reason
            self.wire.streams[self.side].pop(self, None)
            self._wake()

    def arrive(self, data: bytes) -> None:
        if not self.closed and self._broken is None:
            self._node.count_received(self.wire.is_link, len(data))
            self._buffer.append(data)
            if self._readable:
                self._readable.unpark_all()

    def gain_credit(self, size: int) -> None:
        self._credit += size
        self._writable.unpark_all()

    def end(self, closing: bool) -> None:
        """The other side has finished; if it is also `closing`, it will not read either."""
        self._ended = True
        self._deaf = self._deaf or closing
        self._wake()

    def accept(self, _: None) -> None:
        """The other side serves our protocol."""
        self.accepted = True
        self._wake()

    async def wait_accepted(self) -> None:
        """Until the other side has taken the stream. Raises `Unreachable` when it does not."""
        while not self.accepted:
            if self._broken is not None:
                raise Unreachable(self._broken)
            await self._readable.park()

    # ------------------------------------------------------------------------------------------ inside

    def _left(self, _: None) -> None:
        self._leaving = False
        if self._writable:
            self._writable.unpark_all()

    def _finish(self, *, closing: bool) -> None:
        if self._broken is None and self.other is not None and (not self._finished or closing):
            self.wire.send(self.side, HEADER_BYTES, self.other.end, closing)
        self._finished = True

    def _check_sending(self) -> None:
        if self._broken is not None:
            raise Unreachable(self._broken)
        if self._finished:
            raise Unreachable("this side has ended the stream")
        if self._deaf:
            raise Unreachable("the other side has closed the stream")

    def _wake(self) -> None:
        if self._readable:
            self._readable.unpark_all()
        if self._writable:
            self._writable.unpark_all()
