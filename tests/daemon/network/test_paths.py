"""Bulk streams where there is no direct path: the same bytes over libp2p, said in `links`, and for
admitted peers alone.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.network.network import LibP2PNetwork, NetworkSettings
from daemon.network.paths.selector import AGAIN_S, NoPath, PathSelector
from daemon.network.tls.certificate import load_or_make
from protocol.errors import Unreachable
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from tests.ports.network_suite import ECHO, ask, echo, pattern


def make(tmp_path: Path, index: int, join: tuple[str, ...] = ()) -> LibP2PNetwork:
    certificate = load_or_make(tmp_path / f"bulk-{index}.pem", f"node {index}")
    network = LibP2PNetwork(
        NetworkSettings(listen_host="127.0.0.1", join=join), bytes([index + 1]) * 32, certificate
    )
    network.serve_bulk(ECHO, echo)
    return network


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port as behind a router that lets nobody in.

    It stays ours, so that nobody listens on it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def closed(endpoint: Endpoint, port: int) -> Endpoint:
    return msgspec.structs.replace(endpoint, port=port)


@pytest.mark.real
async def test_bulk_bytes_go_over_libp2p_where_no_direct_path_exists(
    tmp_path: Path, closed_port: int
) -> None:
    one = make(tmp_path, 0)
    async with one.running():
        two = make(tmp_path, 1, one.addresses[-1:])
        async with two.running():
            with trio.fail_after(30):
                async for _ in two.changes():
                    break
                # Not admitted: refused over libp2p as it is over TLS.
                with pytest.raises(Unreachable):
                    await two.open_bulk(closed(one.endpoint, closed_port), ECHO)
                one.admit(two.endpoint)
                data = pattern(3_000_001)[:3_000_001]
                stream = await two.open_bulk(closed(one.endpoint, closed_port), ECHO)
                assert stream.peer == one.peer
                assert await ask(stream, data) == data
                await stream.aclose()
            assert [link.path for link in two.links()] == ["stream"]
            assert [link.path for link in one.links()] == ["stream"]


class Ways:
    """A direct way that may be closed, and libp2p."""

    def __init__(self) -> None:
        self.open = False
        self.tried = 0
        self.streams = 0

    async def direct(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        self.tried += 1
        if not self.open:
            raise NoPath("no bulk connection")
        return object()  # type: ignore[return-value]  # nothing is sent on it

    async def over_libp2p(self, peer: str, protocol: str) -> ByteStream:
        self.streams += 1
        return object()  # type: ignore[return-value]


async def test_a_direct_path_is_looked_for_again_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ways = Ways()
    paths = PathSelector(ways.direct, ways.over_libp2p)
    endpoint = Endpoint(peer="p", hosts=("h",), port=1, certificate=b"")
    for _ in range(3):
        await paths.open(endpoint, "x")
    assert (ways.tried, ways.streams, paths.by_stream("p")) == (1, 3, True)
    ways.open = True
    await trio.sleep(AGAIN_S)
    await paths.open(endpoint, "x")
    assert (ways.tried, ways.streams, paths.by_stream("p")) == (2, 3, False)


async def test_a_certificate_that_is_wrong_is_no_missing_path() -> None:
    async def direct(endpoint: Endpoint, protocol: str) -> ByteStream:
        raise Unreachable("showed another certificate")

    ways = Ways()
    with pytest.raises(Unreachable, match="another certificate"):
        await PathSelector(direct, ways.over_libp2p).open(
            Endpoint(peer="p", hosts=(), port=1, certificate=b""), "x"
        )
    assert ways.streams == 0
