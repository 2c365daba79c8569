"""What a sender does with a stream whose peer acknowledges nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from daemon.services.training.native.exchange.bulk_headers import Parcel
from daemon.services.training.native.exchange.bulk_sender import DRAIN_S, STALL_S, BulkSender
from protocol.errors import Unreachable
from protocol.ports.endpoint import Endpoint

FINGERPRINT = bytes(32)
ENDPOINT = Endpoint(peer="p", hosts=("h",), port=1, certificate=b"")
SIZE = 1000


class Stream:
    """Takes all bytes at once. The peer acknowledges `bytes_per_s` of them a second."""

    peer = "p"

    def __init__(self, bytes_per_s: float) -> None:
        self.sent, self.closed = b"", False
        self._bytes_per_s, self._opened_at = bytes_per_s, trio.current_time()

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    def unsent(self) -> int:
        acknowledged = self._bytes_per_s * (trio.current_time() - self._opened_at)
        return max(0, len(self.sent) - int(acknowledged))

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


class Network:
    """Opens streams of these speeds, one after the other."""

    def __init__(self, *speeds: float) -> None:
        self.opened: list[Stream] = []
        self._speeds: Iterator[float] = iter(speeds)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        speed = next(self._speeds, None)
        if speed is None:
            raise Unreachable("no path")
        self.opened.append(Stream(speed))
        return self.opened[-1]


def parcel() -> Parcel:
    return Parcel(header=b"h", payload=memoryview(bytes(SIZE)))


@pytest.mark.parametrize(
    ("speeds", "opened"),
    [((0.0, 1e9), 2), ((1e9,), 1), ((SIZE / DRAIN_S / 2,), 1)],
    ids=["silent", "fast", "slow"],
)
async def test_bulk_sender_replaces_a_stream_whose_peer_acknowledges_nothing(
    autojump_clock: trio.testing.MockClock, speeds: tuple[float, ...], opened: int
) -> None:
    network = Network(*speeds)
    sender = BulkSender(
        network,  # type: ignore[arg-type]
        lambda _peer, _fingerprint: ENDPOINT,
        lambda *_refused: None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(sender.run)
        sender.send("p", FINGERPRINT, parcel())
        await trio.sleep(STALL_S + 1)
        assert len(network.opened) == opened
        assert [stream.closed for stream in network.opened] == [True] * (opened - 1) + [False]
        # The new stream gets all parcels of the view.
        assert network.opened[-1].sent == b"h" + bytes(SIZE)
        nursery.cancel_scope.cancel()
