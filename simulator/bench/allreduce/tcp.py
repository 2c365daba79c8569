"""Plain TCP that moves as many bytes as an all-reduce does: the best that the links give."""

from __future__ import annotations

import socket
from functools import partial

import trio

from daemon.system.offload import in_abandonable_thread
from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named
from simulator.bench.allreduce.driver import CommandPipe, DriverSettings, serve
from simulator.bench.allreduce.vectors import exact_mean, scale_of

READ_BYTES = 1 << 18


class TcpDriver:
    """Plain TCP in one peer.

    It sends a share of its encoding to each other peer twice (the slice, then the result) and reads
    as much. It averages nothing.
    """

    def __init__(self, settings: DriverSettings, listener: trio.SocketListener) -> None:
        self._settings = settings
        self._listener = listener
        self._streams: list[trio.SocketStream] = []
        size = codec_named(settings.codec).size(settings.elements)
        self._share = memoryview(bytes(2 * size // settings.peers))
        self._number = 0

    async def info(self) -> str:
        host, port = self._listener.socket.getsockname()
        return f"{host} {port}"

    async def meet(self, infos: tuple[str, ...]) -> None:
        for info in infos[: self._settings.index]:
            host, port = info.split()
            self._streams.append(await trio.open_tcp_stream(host, int(port)))
        for _ in range(self._settings.index + 1, self._settings.peers):
            self._streams.append(await self._listener.accept())
        for stream in self._streams:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def prepare(self, number: int, vector: Vector) -> None:
        self._number = number

    async def average(self) -> None:
        async with trio.open_nursery() as nursery:
            for stream in self._streams:
                nursery.start_soon(stream.send_all, self._share)
                nursery.start_soon(self._read, stream)

    async def _read(self, stream: trio.SocketStream) -> None:
        into = bytearray(READ_BYTES)
        missing = len(self._share)
        while missing:
            missing -= await stream.socket.recv_into(into, min(missing, READ_BYTES))

    async def result(self) -> Vector:
        return exact_mean(self._settings.peers, self._settings.elements) * scale_of(
            self._number
            # Nothing was averaged that could be wrong.
        )


async def live(pipe: CommandPipe, settings: DriverSettings) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=settings.host)
    await serve(
        pipe,
        settings,
        TcpDriver(settings, listener),
        partial(in_abandonable_thread, pipe.next),
    )


def run(pipe: CommandPipe, settings: DriverSettings) -> None:
    trio.run(live, pipe, settings)
