"""Addresses that a hostile member names: none is called, signed or sent on."""

from __future__ import annotations

import msgspec
import pytest
import trio

from daemon.network.error_boundary import Refusals
from daemon.network.traversal.connector import check_outer
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.expected import ExpectedConnections
from daemon.network.traversal.messages import DialedBack, OuterAddress
from daemon.network.traversal.observation import Address, decode_observation, observe
from daemon.network.traversal.reachability import ReachabilityMonitor
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import UNKNOWN_REACHABILITY

PUBLIC, PUBLIC_6 = "203.0.113.7", "2a0e:97c0:7::7"


@pytest.mark.parametrize(
    "answer",
    [
        b"203.0.113.7 99999999999999999999999\n",
        b"203.0.113.7 65536\n",
        b"203.0.113.7 0\n",
        b"203.0.113.7 -1\n",
        b"203.0.113.7\n",
        b"router.example 4001\n",
        b"\x1b[2J 4001\n",
        b"\xff 4001\n",
        b"",
    ],
)
def test_decode_observation_refuses_what_is_no_address(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no address|decode"):
        decode_observation(answer)


def test_decode_observation_reads_an_address() -> None:
    assert decode_observation(b"203.0.113.7 4001\n") == Address(PUBLIC, 4001)
    assert decode_observation(b"2001:db8::1 65535\n") == Address("2001:db8::1", 65_535)


async def test_observe_is_unreachable_where_the_answer_is_no_address() -> None:
    async def lie(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"203.0.113.7 99999999999999999999999\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, lie, [listener])
        with pytest.raises(Unreachable):
            await observe(Address("127.0.0.1", listener.socket.getsockname()[1]))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.1",
        "a..example",
        "0.0.0.0",
        "127.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:203.0.113.7",
        "2001:db8::1",
        "2002:7f00:1::1",
        "64:ff9b::127.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::",
        "",
    ],
)
def test_check_outer_refuses_what_leads_to_no_public_address(host: str) -> None:
    with pytest.raises(Unreachable):
        # The hostile peer has signed this host itself.
        check_outer(OuterAddress(host=host, port=4001), host)


def test_check_outer_allows_the_public_address_that_the_peer_signed() -> None:
    check_outer(OuterAddress(host=PUBLIC, port=4001), PUBLIC)
    check_outer(OuterAddress(host=PUBLIC_6, port=4001), PUBLIC_6)
    for host in (PUBLIC, PUBLIC_6):
        with pytest.raises(Unreachable):
            check_outer(OuterAddress(host=host, port=22), host)


class OneMember:
    """Connections to one member, met at a public address."""

    def peers(self) -> set[PeerId]:
        return {"member"}

    def host_of(self, peer: PeerId) -> str:
        return "203.0.113.99"

    def rtt_of(self, peer: PeerId) -> float | None:
        return None


class Answer:
    """A stream with one reply."""

    peer = "member"

    def __init__(self, reply: msgspec.Struct) -> None:
        data = msgspec.msgpack.encode(reply)
        self._data = len(data).to_bytes(2, "big") + data

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return piece

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("host", "observed"), [(PUBLIC, PUBLIC), ("\x1b[2J", ""), ("x.example", "")]
)
async def test_reachability_monitor_takes_only_an_ip_address_for_its_own(
    host: str, observed: str
) -> None:
    async def open_stream(peer: PeerId, protocol: str) -> Answer:
        return Answer(DialedBack(host=host, control=True, bulk=True))

    async def accept(*_given: object) -> None:
        raise AssertionError("nobody calls")

    context = TraversalContext(
        connections=OneMember(),
        open_stream=open_stream,  # type: ignore[arg-type]
        accept=accept,
        expected=ExpectedConnections(),
        refusals=Refusals(),
        matters=lambda _peer: True,
        is_in_run=lambda _peer: True,
        reach_of=lambda _peer: UNKNOWN_REACHABILITY,
    )
    monitor = ReachabilityMonitor(context, OwnPorts(control=1, bulk=2), lambda: ())
    await monitor.check()
    assert monitor.reach.observed == observed
