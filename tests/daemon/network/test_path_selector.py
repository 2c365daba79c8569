"""Which path a peer's bulk bytes take."""

from __future__ import annotations

import pytest
import trio

from daemon.network.paths.path import NoPath
from daemon.network.paths.selector import RETRY_S, PathSelector
from daemon.network.tcp_info import SegmentCounts
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint

ENDPOINT = Endpoint(peer="p", hosts=("h",), port=1, certificate=b"")


class FakeTransport:
    """A transport that opens streams, or fails with `error`."""

    def __init__(self, kind: PathKind, error: Unreachable | None = None) -> None:
        self.kind: PathKind = kind
        self.error = error
        self.tries = 0
        self.handler: StreamHandler | None = None

    async def open(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        self.tries += 1
        if self.error is not None:
            raise self.error
        # Nothing is sent on the stream.
        return object()  # type: ignore[return-value]

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self.handler = handler

    def segments(self, peer: PeerId) -> SegmentCounts:
        return SegmentCounts(10, 1)

    async def listen(self, listener: trio.SocketListener) -> None: ...
    async def cut(self) -> None: ...


class FakeStream:
    peer = "p"


async def test_a_direct_path_is_tried_again_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    direct = FakeTransport("direct", NoPath("no bulk connection"))
    libp2p = FakeTransport("libp2p")
    selector = PathSelector([direct, libp2p])
    for _ in range(3):
        await selector.open(ENDPOINT, "x")
    assert (direct.tries, libp2p.tries) == (1, 3)
    path = selector.path_to("p")
    assert (path.kind, path.reason) == ("libp2p", "no bulk connection")
    direct.error = None
    await trio.sleep(RETRY_S)
    await selector.open(ENDPOINT, "x")
    assert (direct.tries, libp2p.tries) == (2, 3)
    assert selector.path_to("p").kind == "direct"


async def test_a_wrong_certificate_is_no_missing_path() -> None:
    direct = FakeTransport("direct", Unreachable("showed another certificate"))
    libp2p = FakeTransport("libp2p")
    with pytest.raises(Unreachable, match="another certificate"):
        await PathSelector([direct, libp2p]).open(ENDPOINT, "x")
    assert libp2p.tries == 0


async def test_without_any_path_all_reasons_are_given() -> None:
    direct = FakeTransport("direct", NoPath("no bulk connection"))
    libp2p = FakeTransport("libp2p", NoPath("it closed the stream"))
    selector = PathSelector([direct, libp2p])
    with pytest.raises(Unreachable, match="no bulk connection; over libp2p: it closed"):
        await selector.open(ENDPOINT, "x")
    assert selector.path_to("p").kind == "direct", "a path that failed is not remembered"


async def test_the_path_that_a_peer_uses_is_noted_and_segments_are_added_up() -> None:
    direct, libp2p = FakeTransport("direct"), FakeTransport("libp2p")
    selector = PathSelector([direct, libp2p])

    async def handler(stream: ByteStream) -> None: ...

    selector.serve("x", handler)
    assert direct.handler is not None
    assert libp2p.handler is not None
    stream: ByteStream = FakeStream()  # type: ignore[assignment]
    await libp2p.handler(stream)
    path = selector.path_to("p")
    assert path.kind == "libp2p"
    assert path.segments == SegmentCounts(20, 2)
    await direct.handler(stream)
    assert selector.path_to("p").kind == "direct"
