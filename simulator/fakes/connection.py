"""One connection between two fake nodes: pieces cross it in order, and each end may break alone.

Everything that crosses a connection is a *piece*: a size, an act and its argument. A piece takes
its turn in the pipes on the path and flies. Then its act runs at the other end, in the order of
sending. Where the path is cut (a partition, a paused process), landed pieces are held back, as TCP
would retransmit them. When the path opens again they are delivered, unless an end has given the
connection up in the meantime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import trio

from protocol.identity import PeerId
from protocol.ports.network import Traffic
from simulator.fakes.paths import Paths

# A yamux frame without data: opening, acknowledging, closing, window updates.
HEADER_BYTES = 12


class TrafficCounter:
    """The bytes that one node sent and received, on the control and the bulk plane."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        # In the order of the fields of `Traffic`.
        self._bytes = [0, 0, 0, 0]

    def count_sent(self, control: bool, size_bytes: int) -> None:
        self._bytes[0 if control else 2] += size_bytes

    def count_received(self, control: bool, size_bytes: int) -> None:
        self._bytes[1 if control else 3] += size_bytes

    def read(self) -> Traffic:
        control_sent, control_received, bulk_sent, bulk_received = self._bytes
        return Traffic(
            control_sent=control_sent,
            control_received=control_received,
            bulk_sent=bulk_sent,
            bulk_received=bulk_received,
        )


class ConnectionEnd(Protocol):
    """What a connection needs of the node at each end."""

    @property
    def peer(self) -> PeerId: ...

    @property
    def paused(self) -> bool: ...

    @property
    def counter(self) -> TrafficCounter: ...

    def accept_stream(self, opener: Any) -> None:
        """A `FakeStream` that the other end opened has arrived."""

    def link_lost(self, connection: FakeConnection, peer: PeerId, reason: str) -> None:
        """The lasting connection to `peer` broke at this end."""


def is_cut(paths: Paths, here: ConnectionEnd, there: ConnectionEnd) -> bool:
    """Whether nothing passes between two nodes: their path is cut, or one of them is paused."""
    return here.paused or there.paused or paths.is_cut(here.peer, there.peer)


class OpenStream(Protocol):
    """What a connection needs of a stream on it."""

    def break_off(self, reason: str) -> None:
        """End the stream from outside."""


class FakeConnection:
    """A connection. One of its two ends may be down while the other does not know it yet."""

    __slots__ = (
        "_flushing",
        "_generation",
        "_held",
        "_last_landing",
        "_last_leaving",
        "_on_closed",
        "_paths",
        "cut",
        "ends",
        "is_link",
        "since_s",
        "streams",
        "up",
    )

    def __init__(
        self,
        paths: Paths,
        ends: tuple[ConnectionEnd, ConnectionEnd],
        on_closed: Callable[[FakeConnection], None],
        *,
        is_link: bool,
    ) -> None:
        """`is_link` says that this is the lasting control connection, not one bulk stream's own."""
        self.ends = ends
        self.is_link = is_link
        self.since_s = trio.current_time()
        self.up = [True, True]
        self.streams: tuple[dict[OpenStream, None], dict[OpenStream, None]] = ({}, {})
        self._last_leaving = [0.0, 0.0]  # from each side
        self.cut = False
        self._paths = paths
        self._on_closed = on_closed
        self._last_landing = [0.0, 0.0]  # at each side
        self._held: list[tuple[int, Callable[[Any], None], Any]] = []
        self._flushing = False
        # Counts changes of `cut`: a ping timeout that was set for an earlier cut means nothing.
        self._generation = 0

    def side_of(self, peer: PeerId) -> int:
        """The end of this peer: 0 or 1."""
        return 0 if self.ends[0].peer == peer else 1

    def send(self, side: int, size_bytes: int, act: Callable[[Any], None], argument: Any) -> float:
        """Run `act(argument)` at the other side, one flight from now.

        Returns when the piece lands if the path is not cut until then.
        """
        other = 1 - side
        self._last_leaving[side], landing = self._paths.transit(
            self.ends[side].peer, self.ends[other].peer, size_bytes
        )
        if landing < self._last_landing[other]:
            landing = self._last_landing[other]
        else:
            self._last_landing[other] = landing
        if self.up[side]:
            self._paths.schedule.at(landing, self._land, (other, act, argument))
        return landing

    def call_when_left(self, side: int, act: Callable[[None], None]) -> bool:
        """Run `act` when the last piece of this side has left; False when it has left already."""
        leaves = self._last_leaving[side]
        if leaves <= trio.current_time():
            return False
        self._paths.schedule.at(leaves, act, None)
        return True

    def _land(self, piece: tuple[int, Callable[[Any], None], Any]) -> None:
        side, act, argument = piece
        if not self.up[side]:
            return
        if self.cut or self._flushing:
            self._held.append(piece)
        else:
            act(argument)

    def refresh_cut(self) -> None:
        """Look whether the ends can hear each other, and act on a change."""
        cut = is_cut(self._paths, *self.ends)
        if cut == self.cut:
            return
        self.cut = cut
        self._generation += 1
        if cut:
            for side in (0, 1):
                self._paths.schedule.at(
                    self._paths.ping_deadline(), self._ping_unanswered, (side, self._generation)
                )
        elif self._held:
            # Lost pieces are retransmitted: they land after one more flight, ahead of everything
            # that was sent since.
            self._flushing = True
            first, second = (end.peer for end in self.ends)
            latency_s = max(
                self._paths.latency_s(first, second), self._paths.latency_s(second, first)
            )
            self._paths.schedule.at(trio.current_time() + latency_s, self._flush, self._generation)

    def _flush(self, generation: int) -> None:
        if generation != self._generation:
            # The path was cut again before the pieces landed.
            return
        self._flushing = False
        held, self._held = self._held, []
        for piece in held:
            self._land(piece)

    def _ping_unanswered(self, timeout: tuple[int, int]) -> None:
        side, generation = timeout
        if self.cut and generation == self._generation and not self.ends[side].paused:
            self.give_up(side, "no answer to pings")

    def give_up(self, side: int, reason: str) -> None:
        """Close the connection at this side. The other side learns it when a reset gets through."""
        if self.up[side]:
            self.send(side, HEADER_BYTES, self._reset, 1 - side)
            self._lose(side, reason)

    def retire(self, side: int) -> None:
        """Take this side down without a reset. What it sent is still delivered."""
        self.up[side] = False
        if not any(self.up):
            self._on_closed(self)

    def retire_unused(self, side: int) -> None:
        """Retire a bulk connection whose one stream was not accepted."""
        if not self.is_link:
            self.retire(side)

    def _reset(self, side: int) -> None:
        self._lose(side, "the other side reset the connection")

    def _lose(self, side: int, reason: str) -> None:
        """Break the connection at this side: break its streams and report the loss to its node."""
        if self.up[side]:
            self.up[side] = False
            for stream in list(self.streams[side]):
                stream.break_off(reason)
            self.streams[side].clear()
            if self.is_link:
                self.ends[side].link_lost(self, self.ends[1 - side].peer, reason)
        if not any(self.up):
            self._held.clear()
            self._on_closed(self)
