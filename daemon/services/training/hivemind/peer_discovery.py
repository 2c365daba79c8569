"""How members' hivemind peers find each other: each member tells whoever asks, over our own
network, where its hivemind peer is reached.

hivemind's DHT and libp2p of another make are not ours: the two networks share members and nothing
else.
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
# Between looks at whether a member's hivemind peer is still unknown to ours.
MEET_S = 1.0

Address = Annotated[str, Meta(max_length=256, pattern="^/")]


class PeerAddresses(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A member's hivemind addresses, each ending in `/p2p/` and hivemind's peer id; none while its
    hivemind process is starting.
    """

    maddrs: Annotated[tuple[Address, ...], Meta(max_length=16)]


def serve_addresses(network: Network, maddrs: Callable[[], tuple[str, ...]]) -> None:
    """Answer whoever asks. Before the network starts."""

    async def take(stream: ByteStream) -> None:
        await stream.send_all(frame(msgspec.msgpack.encode(PeerAddresses(maddrs=maddrs()[:16]))))
        await stream.send_eof()

    network.serve(PROTOCOL, take)


async def fetch_addresses(network: Network, peer: PeerId) -> tuple[str, ...]:
    """Raises `Unreachable` or `PeerFault`."""
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
    """Make the hivemind peers of all live members known to ours, again after each of its deaths.

    Until cancelled.
    """
    met: set[PeerId] = set()
    life = process.lives
    while True:
        if process.lives != life:
            met, life = set(), process.lives
        members = live()
        met &= members
        for peer in sorted(members - met):
            try:
                maddrs = await fetch_addresses(network, peer)
                if maddrs and isinstance(
                    await process.ask(lambda number, to=maddrs: ConnectPeer(id=number, maddrs=to)),
                    CommandDone,
                ):
                    met.add(peer)
            except PeerFault as fault:
                refuse(fault.reason, peer, str(fault))
                met.add(peer)
            except (Unreachable, HivemindLost):
                continue  # asked again in a moment
        await trio.sleep(MEET_S)
