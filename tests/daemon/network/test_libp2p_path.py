"""Bulk bytes go over libp2p where no direct path exists, and for admitted peers alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from protocol.errors import Unreachable
from protocol.ports.endpoint import Endpoint
from tests.daemon.network.nodes import make_echo_node, make_node
from tests.ports.network_kit import ECHO, ask, echo, pattern


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which no program listens, as behind a router that lets no call in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def closed(endpoint: Endpoint, port: int) -> Endpoint:
    return msgspec.structs.replace(endpoint, port=port)


@pytest.mark.real
async def test_bulk_bytes_go_over_libp2p_where_no_direct_path_exists(
    tmp_path: Path, closed_port: int
) -> None:
    one = make_echo_node(tmp_path, 0)
    async with one.running():
        # A node without a bulk port cannot be called back either.
        two = make_node(tmp_path, 2, *one.addresses[-1:], bulk=False)
        two.serve_bulk(ECHO, echo)
        async with two.running():
            with trio.fail_after(30):
                async for _ in two.changes():
                    break
                # A peer that is not admitted is refused over libp2p as it is over TLS.
                with pytest.raises(Unreachable):
                    await two.open_bulk(closed(one.endpoint, closed_port), ECHO)
                one.admit(two.endpoint)
                data = pattern(3_000_001)[:3_000_001]
                stream = await two.open_bulk(closed(one.endpoint, closed_port), ECHO)
                assert stream.peer == one.peer
                assert await ask(stream, data) == data
                await stream.aclose()
            assert [link.path for link in two.links()] == ["libp2p"]
            assert "no bulk connection" in two.path_to(one.peer).reason
            assert [link.path for link in one.links()] == ["libp2p"]


@pytest.mark.real
async def test_a_node_that_cannot_be_called_calls_back(tmp_path: Path, closed_port: int) -> None:
    one = make_echo_node(tmp_path, 0)
    async with one.running():
        two = make_echo_node(tmp_path, 1, one.addresses[-1:])
        async with two.running():
            with trio.fail_after(30):
                async for _ in two.changes():
                    break
                one.admit(two.endpoint)
                stream = await two.open_bulk(closed(one.endpoint, closed_port), ECHO)
                data = pattern(100_001)[:100_001]
                assert await ask(stream, data) == data
                await stream.aclose()
            assert two.path_to(one.peer).kind == "direct"
