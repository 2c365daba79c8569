"""Strangers flood a node over real connections: each resource is bounded, and newcomers get in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.peer.id import ID
from libp2p.peer.peerstore import create_signed_peer_record
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr

from daemon.network.addresses import PeerAddress
from daemon.network.libp2p import inbound as inbound_module
from daemon.network.libp2p.inbound import MAX_HANDSHAKES
from daemon.network.libp2p.pubsub import MAX_RPC_BYTES
from daemon.network.limits.stranger_quota import OF_BRINGER
from daemon.network.network import LibP2PNetwork
from daemon.network.paths.direct_server import MAX_HANDSHAKES as BULK_HANDSHAKES
from daemon.network.peers import manager as manager_module
from daemon.network.peers.dial_policy import SOURCE_TRIES_AT_ONCE, SOURCE_TRIES_PER_S
from daemon.network.peers.exchange import PEERS_PROTOCOL
from daemon.network.peers.peer_record import encode_exchange, seal_record
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.errors import Unreachable
from protocol.identity import Signer
from tests.daemon.network.nodes import control_port, make_node, until_linked

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

TOPIC = "hypergpu/test"
GOSSIP = "/meshsub/1.1.0"
KEYS = 300
# A busy machine needs this long; an idle one needs a tenth.
JOINED_S = 20.0


def stranger(number: int) -> Signer:
    return Signer((1000 + number).to_bytes(32, "big"))


@asynccontextmanager
async def target_and_flooder(
    home: Path,
) -> AsyncIterator[tuple[LibP2PNetwork, LibP2PNetwork, list[str]]]:
    """A node, a stranger that is connected to it, and the signers whose gossip the node heard."""
    heard: list[str] = []

    def judge(peer: str, _data: bytes) -> bool:
        heard.append(peer)
        return True

    target = make_node(home, 1)
    target.subscribe(TOPIC, judge, keep=False)
    async with target.running():
        flooder = make_node(home, 2, *target.addresses)
        flooder.subscribe(TOPIC, lambda _peer, _data: True, keep=False)
        async with flooder.running():
            await until_linked(target, 1)
            pubsub = target._gossip._pubsub
            assert pubsub is not None
            with trio.fail_after(JOINED_S):
                # Wait for the library's own stream, since the newest of two is read.
                while not pubsub.peer_topics.get(TOPIC):
                    await trio.sleep(0.02)
            yield target, flooder, heard


async def test_silent_connections_do_not_keep_a_newcomer_out(tmp_path: Path) -> None:
    target = make_node(tmp_path, 1)
    async with target.running(), AsyncExitStack() as held:
        for port, count in (
            (control_port(target), MAX_HANDSHAKES),
            (target.endpoint.port, BULK_HANDSHAKES),
        ):
            for _ in range(count + 40):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                held.push_async_callback(trio.aclose_forcefully, stream)
        newcomer = make_node(tmp_path, 2, *target.addresses)
        with trio.fail_after(JOINED_S):
            async with newcomer.running():
                await until_linked(newcomer, 1)


async def test_connections_of_many_keys_are_bounded_and_a_member_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound_module, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(manager_module, "SMALL_SWARM", 0)
    settings = NetworkSettings(listen_host="127.0.0.1", min_connections=0)
    target = LibP2PNetwork(
        settings, (1).to_bytes(32, "big"), load_or_make(tmp_path / "bulk-1.pem", "node 1")
    )
    async with target.running(), AsyncExitStack() as crowd:
        member = make_node(tmp_path, 50, *target.addresses)
        await crowd.enter_async_context(member.running())
        await until_linked(target, 1)
        target.keep(frozenset({member.peer}))
        since = target.links()[0].since_s
        for number in range(7):
            node = make_node(tmp_path, 60 + number, *target.addresses)
            await crowd.enter_async_context(node.running())
            await until_linked(node, 1)
        with trio.fail_after(JOINED_S):
            assert target._running.parts is not None
            inbound = target._running.parts.host.inbound
            while target.refusals()["busy"] < 3 or inbound.open_connections() > 4:
                await trio.sleep(0.05)
        assert {link.peer: link.since_s for link in target.links()}.get(member.peer) == since, (
            "the member's connection was never closed"
        )


async def test_a_member_reconnects_while_strangers_of_its_prefix_hold_all_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound_module, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(inbound_module, "EVICTIONS_PER_S", 0.0)
    monkeypatch.setattr(inbound_module, "EVICTIONS_AT_ONCE", 0.0)
    settings = NetworkSettings(listen_host="127.0.0.1", min_connections=0)
    target = LibP2PNetwork(
        settings, (1).to_bytes(32, "big"), load_or_make(tmp_path / "bulk-1.pem", "node 1")
    )
    async with target.running(), AsyncExitStack() as crowd:
        for number in range(2):
            node = make_node(tmp_path, 60 + number, *target.addresses)
            await crowd.enter_async_context(node.running())
            await until_linked(target, number + 1)
        member = make_node(tmp_path, 50, *target.addresses)
        target.keep(frozenset({member.peer}))
        await crowd.enter_async_context(member.running())
        with trio.fail_after(JOINED_S):
            while not any(
                link.peer == member.peer and trio.current_time() - link.since_s > 1.0
                for link in target.links()
            ):
                await trio.sleep(0.05)


async def test_addresses_from_a_stranger_are_dialled_a_few_times(tmp_path: Path) -> None:
    called = 0

    async def count(stream: trio.SocketStream) -> None:
        nonlocal called
        called += 1
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), count, 0)
        port = listener.socket.getsockname()[1]
        async with target_and_flooder(tmp_path) as (target, flooder, _):
            began = trio.current_time()
            for first in range(0, KEYS, 30):
                records = [
                    seal_record(
                        stranger(n),
                        [PeerAddress("ip4", "127.0.0.1", port, stranger(n).peer)] * 8,
                        (),
                        1,
                    )
                    for n in range(first, first + 30)
                ]
                data = encode_exchange(records)
                stream = await flooder.open_stream(target.peer, PEERS_PROTOCOL)
                await stream.send_all(len(data).to_bytes(4, "big") + data)
                await stream.send_eof()
                while await stream.receive_some(1 << 16):
                    pass
                await stream.aclose()
            await trio.sleep(2.0)
            assert (
                0
                < called
                <= SOURCE_TRIES_AT_ONCE + SOURCE_TRIES_PER_S * (trio.current_time() - began) + 1
            )
        nursery.cancel_scope.cancel()


async def test_a_node_does_not_dial_the_peers_in_a_prune(tmp_path: Path) -> None:
    called = trio.Event()

    async def note(stream: trio.SocketStream) -> None:
        called.set()
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), note, 0)
        port = listener.socket.getsockname()[1]
        async with target_and_flooder(tmp_path) as (target, flooder, _heard):
            rpc = rpc_pb2.RPC()
            prune = rpc.control.prune.add(topicID=TOPIC, backoff=1 << 40)
            for number in range(16):
                keys = Ed25519PrivateKey.from_bytes((1000 + number).to_bytes(32, "big"))
                peer = ID.from_pubkey(keys.get_public_key())
                record = create_signed_peer_record(
                    peer, [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")], keys
                )
                prune.peers.add(peerID=peer.to_bytes(), signedPeerRecord=record.marshal_envelope())
            for number in range(3000):
                rpc.control.prune.add(topicID=f"made up {number}")
                rpc.control.ihave.add(topicID=f"made up {number}", messageIDs=[b"aa"] * 3)
            raw = rpc.SerializeToString()
            stream = await flooder.open_stream(target.peer, GOSSIP)
            await stream.send_all(encode_uvarint(len(raw)) + raw)
            with trio.move_on_after(1.5):
                await called.wait()
            assert not called.is_set()
            pubsub = target._gossip._pubsub
            assert pubsub is not None
            assert len(pubsub.router.back_off) <= 1, "unknown topics leave no back-off"
            assert (
                max(
                    (len(topics) for topics in pubsub.router.ihave_message_limits.values()),
                    default=0,
                )
                <= 1
            )
        nursery.cancel_scope.cancel()


async def test_one_connection_brings_gossip_of_few_strangers(tmp_path: Path) -> None:
    async with target_and_flooder(tmp_path) as (target, flooder, heard):
        rpc = rpc_pb2.RPC()
        for number in range(KEYS):
            keys = Ed25519PrivateKey.from_bytes((1000 + number).to_bytes(32, "big"))
            origin = ID.from_pubkey(keys.get_public_key()).to_bytes()
            message = rpc_pb2.Message(
                from_id=origin, data=b"beacon", seqno=number.to_bytes(8, "big"), topicIDs=[TOPIC]
            )
            message.signature = keys.sign(b"libp2p-pubsub:" + message.SerializeToString())
            rpc.publish.append(message)
        raw = rpc.SerializeToString()
        stream = await flooder.open_stream(target.peer, GOSSIP)
        await stream.send_all(encode_uvarint(len(raw)) + raw)
        with trio.fail_after(JOINED_S):
            while len(heard) < OF_BRINGER or target.refusals()["busy"] < KEYS - OF_BRINGER:
                await trio.sleep(0.05)
        assert len(set(heard)) == OF_BRINGER
        target.keep(frozenset({stranger(KEYS - 1).peer}))
        assert target._gossip._may_bring(flooder.peer, stranger(KEYS - 1).peer), (
            "any neighbour may bring gossip of a member"
        )


async def test_the_newest_gossip_stream_of_a_peer_is_read_and_older_ones_are_reset(
    tmp_path: Path,
) -> None:
    async with target_and_flooder(tmp_path) as (target, flooder, heard):
        # Each of these streams begins a message of a megabyte and never ends the message.
        begun = encode_uvarint(MAX_RPC_BYTES) + bytes(100_000)
        older = []
        for _ in range(4):
            older.append(await flooder.open_stream(target.peer, GOSSIP))
            await older[-1].send_all(begun)
        newest = await flooder.open_stream(target.peer, GOSSIP)
        keys = Ed25519PrivateKey.from_bytes(bytes(31) + b"\x07")
        message = rpc_pb2.Message(
            from_id=ID.from_pubkey(keys.get_public_key()).to_bytes(),
            data=b"beacon",
            seqno=bytes(8),
            topicIDs=[TOPIC],
        )
        message.signature = keys.sign(b"libp2p-pubsub:" + message.SerializeToString())
        raw = rpc_pb2.RPC(publish=[message]).SerializeToString()
        await newest.send_all(encode_uvarint(len(raw)) + raw)
        with trio.fail_after(JOINED_S):
            for stream in older:
                with pytest.raises(Unreachable):
                    await stream.receive_some(1)
            while not heard:
                await trio.sleep(0.05)


async def test_a_member_outside_a_mesh_of_strangers_receives_our_gossip(tmp_path: Path) -> None:
    async with target_and_flooder(tmp_path) as (target, member, _):
        router = target._gossip._pubsub.router
        stranger = ID.from_pubkey(Ed25519PrivateKey.from_bytes(bytes(32)).get_public_key())
        # The mesh holds strangers that pass nothing on. The member was pruned from it.
        router.mesh[TOPIC] = {stranger}
        own, other = ID.from_base58(target.peer), ID.from_base58(member.peer)
        assert other not in set(router._get_peers_to_send([TOPIC], own, own))
        target.keep(frozenset({member.peer}))
        assert other in set(router._get_peers_to_send([TOPIC], own, own))
        assert other not in set(router._get_peers_to_send([TOPIC], other, own)), (
            "the member brought the message"
        )


async def test_a_peer_without_a_known_address_is_not_dialled(tmp_path: Path) -> None:
    async with target_and_flooder(tmp_path) as (target, _flooder, _):
        with pytest.raises(Unreachable, match="no address"):
            await target.open_stream(stranger(1).peer, PEERS_PROTOCOL)
