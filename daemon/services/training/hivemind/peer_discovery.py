"""Connects the hivemind peers of a run's members.

Each member serves the addresses of its hivemind peer over HyperGPU's own network. hivemind has a
DHT and a libp2p of its own: the two networks share their members and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from daemon.children.messages import CommandDone
from daemon.services.training.hivemind.messages import ConnectPeer
from daemon.services.training.hivemind.process import HivemindLost, HivemindProcess
from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.messenger import Refuse
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/hivemind/1"
ANSWER_BYTES = 8192
ANSWER_S = 5.0
# The pause between two rounds of connecting to members.
CONNECT_PAUSE_S = 1.0

Address = Annotated[str, Meta(max_length=256, pattern="^/")]


class PeerAddresses(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A member's hivemind addresses, each of which ends in `/p2p/` and hivemind's peer id.

    There are none while the member's hivemind process starts.
    """

    maddrs: Annotated[tuple[Address, ...], Meta(max_length=16)]


def serve_addresses(network: Network, maddrs: Callable[[], tuple[str, ...]]) -> None:
    """Serve this node's hivemind addresses to members. Call before the network starts."""

    async def answer(stream: ByteStream) -> None:
        await stream.send_all(frame(msgspec.msgpack.encode(PeerAddresses(maddrs=maddrs()[:16]))))
        await stream.send_eof()

    network.serve(PROTOCOL, answer)


async def fetch_addresses(network: Network, peer: PeerId) -> tuple[str, ...]:
    """Ask a member for its hivemind addresses. Raises `Unreachable` or `PeerFault`."""
    with trio.move_on_after(ANSWER_S):
        stream = await network.open_stream(peer, PROTOCOL)
        try:
            return msgspec.msgpack.decode(
                await FrameReader(stream).expect_frame(ANSWER_BYTES), type=PeerAddresses
            ).maddrs
        except msgspec.DecodeError as error:
            raise PeerFault("malformed", f"no hivemind addresses: {error}") from None
        finally:
            await stream.aclose()
    raise Unreachable(f"no hivemind addresses within {ANSWER_S:g} s")


async def connect_members(
    network: Network,
    process: HivemindProcess,
    live: Callable[[], frozenset[PeerId]],
    refuse: Refuse,
) -> None:
    """Connect the hivemind process to the hivemind peers of all live members, until cancelled.

    A process that restarts is connected again.
    """
    connected: set[PeerId] = set()
    start = process.starts
    while True:
        if process.starts != start:
            connected, start = set(), process.starts
        members = live()
        connected &= members
        for peer in sorted(members - connected):
            try:
                maddrs = await fetch_addresses(network, peer)
                if maddrs and await _connect(process, maddrs):
                    connected.add(peer)
            except PeerFault as fault:
                refuse(fault.reason, peer, str(fault))
                connected.add(peer)
            except (Unreachable, HivemindLost):
                # The next round asks again.
                continue
        await trio.sleep(CONNECT_PAUSE_S)


async def _connect(process: HivemindProcess, maddrs: tuple[str, ...]) -> bool:
    report = await process.ask(lambda number: ConnectPeer(id=number, maddrs=maddrs))
    return isinstance(report, CommandDone)
