"""A TCP relay between members, to cut, delay or narrow their links without root.

All of 127.0.0.0/8 is this machine. A member listens on an address of its own and is advertised
under another one, where the relay listens on the same ports. So every connection to it passes
through the relay, in both planes. The kernel knows the caller: the process whose socket has that
port (`/proc/net/tcp`). So a link has two ends, and each direction has its own condition.

    relay between      a ----> 127.88.0.2 (advertised) --relay--> 127.87.0.2 (b listens)

Guarantees: bytes arrive in order or the connection breaks. A cut link breaks its connections and
refuses new ones. A frozen link keeps its connections and delivers nothing, as a pulled cable does.
The timing is only as exact as a busy event loop allows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

PIECE_BYTES = 1 << 16
# The bytes under way in one direction of one connection: 10 MB/s over 100 ms. Beyond that the
# sender waits.
BUFFERED_BYTES = 1 << 20
# The capacity of a bucket, in seconds of its rate. It is finer than the round trips that are
# simulated here.
BURST_S = 0.02
CONNECT_S = 5.0


class LinkCondition(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of one direction of a link.

    `bytes_per_second` None means no limit. A cut link refuses connections, and a frozen link
    delivers nothing.
    """

    delay_s: float = 0.0
    bytes_per_second: float | None = None
    cut: bool = False
    frozen: bool = False


CLEAR = LinkCondition()


class TokenBucket:
    """Tokens for bytes, shared by all connections of one direction of a link."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._filled_s = trio.current_time()

    async def acquire(self, size: int, rate: float) -> None:
        """Wait until `size` bytes may pass. Callers share the rate and are served in order."""
        now = trio.current_time()
        self._tokens = min(self._tokens + (now - self._filled_s) * rate, rate * BURST_S) - size
        self._filled_s = now
        if self._tokens < 0:
            await trio.sleep(-self._tokens / rate)


class Relay:
    """Forwards to members by name.

    `condition(a, b)` applies to what a sends to b. Unknown callers have the name "".
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.bytes_moved = 0
        self._nursery = nursery
        self._conditions: dict[tuple[str, str], LinkCondition] = {}
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        self._pids: dict[str, Callable[[], int | None]] = {}
        self._open: dict[frozenset[str], set[trio.CancelScope]] = {}
        self._changed = trio.Event()

    def introduce(self, name: str, pid: Callable[[], int | None]) -> None:
        """Give a name to the connections of a process. `pid` returns None while there is no
        process.
        """
        self._pids[name] = pid

    async def forward(self, name: str, host: str, to_host: str, port: int = 0) -> int:
        """Listen for `name` on `host`, and forward to `to_host` on the same port.

        Returns the port. Raises `OSError` when the port is in use.
        """
        (listener,) = await trio.open_tcp_listeners(port, host=host)
        taken: int = listener.socket.getsockname()[1]

        async def accept(stream: trio.SocketStream) -> None:
            await self._connect(stream, name, to_host, taken)

        self._nursery.start_soon(trio.serve_listeners, accept, [listener])
        return taken

    # ---------------------------------------------------------------- conditions

    def condition(self, sender: str, receiver: str) -> LinkCondition:
        return self._conditions.get((sender, receiver), CLEAR)

    def set(self, sender: str, receiver: str, condition: LinkCondition) -> None:
        """Set the condition of one direction, also for bytes under way.

        A cut breaks both directions, since TCP has no one-way connections.
        """
        self._conditions[sender, receiver] = condition
        if condition.cut:
            for scope in self._open.pop(frozenset({sender, receiver}), set()):
                scope.cancel()
        self._changed.set()
        self._changed = trio.Event()

    def between(self, one: str, other: str, condition: LinkCondition) -> None:
        """Set the condition of both directions."""
        self.set(one, other, condition)
        self.set(other, one, condition)

    def split(self, groups: list[list[str]], condition: LinkCondition) -> None:
        """Set the condition of every link between different groups.

        `LinkCondition(cut=True)` makes a partition, and `CLEAR` ends it.
        """
        for i, group in enumerate(groups):
            for others in groups[i + 1 :]:
                for one in group:
                    for other in others:
                        self.between(one, other, condition)

    # ---------------------------------------------------------------- connections

    async def _connect(self, stream: trio.SocketStream, name: str, to_host: str, port: int) -> None:
        caller = await self._caller(stream.socket.getpeername()[1])
        if self.condition(caller, name).cut or self.condition(name, caller).cut:
            await _close(stream)
            return
        link = frozenset({caller, name})
        streams = [stream]
        with trio.CancelScope() as scope:
            self._open.setdefault(link, set()).add(scope)
            try:
                with trio.fail_after(CONNECT_S):
                    onward = await trio.open_tcp_stream(to_host, port)
                streams.append(onward)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        self._pass, stream, onward, (caller, name), nursery.cancel_scope
                    )
                    nursery.start_soon(
                        self._pass, onward, stream, (name, caller), nursery.cancel_scope
                    )
            except (OSError, trio.TooSlowError):
                # Nobody listens there. The caller sees its connection break, as it would without
                # the relay.
                pass
            finally:
                self._open.get(link, set()).discard(scope)
                for one in streams:
                    await _close(one)

    async def _pass(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        way: tuple[str, str],
        broken: trio.CancelScope,
    ) -> None:
        """Forward one direction of one connection: read, hold for the delay, write."""
        put, get = trio.open_memory_channel[tuple[float, bytes]](BUFFERED_BYTES // PIECE_BYTES)

        async def read() -> None:
            async with put:
                while data := await source.receive_some(PIECE_BYTES):
                    await put.send((trio.current_time(), data))

        async def write() -> None:
            async for arrived_s, data in get:
                await trio.sleep_until(arrived_s + self.condition(*way).delay_s)
                while self.condition(*way).frozen:
                    await self._changed.wait()
                rate = self.condition(*way).bytes_per_second
                if rate is not None:
                    await self._buckets.setdefault(way, TokenBucket()).acquire(len(data), rate)
                await target.send_all(data)
                self.bytes_moved += len(data)
            await target.send_eof()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(write)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            broken.cancel()

    async def _caller(self, port: int) -> str:
        """The name of the process whose socket has this local port; empty when unknown."""
        inode = _inode_of(port)
        if inode is None:
            return ""
        wanted = f"socket:[{inode}]"
        for name, pid in self._pids.items():
            number = pid()
            if number is not None and _has(number, wanted):
                return name
        await trio.lowlevel.checkpoint()
        return ""


async def _close(stream: trio.SocketStream) -> None:
    """Close at once, also during cancellation."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def _inode_of(port: int) -> int | None:
    """The socket with this local port that is a connection, not a listener (proc(5))."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] != "0A":
            return int(fields[9])
    return None


def _has(pid: int, wanted: str) -> bool:
    try:
        handles = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for handle in handles:
        with suppress(OSError):  # The descriptor may close meanwhile.
            if os.readlink(f"/proc/{pid}/fd/{handle}") == wanted:
                return True
    return False
