"""One peer floods another over real connections: its input is rationed, others are heard."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint

from daemon.network.libp2p.gossip import REFUSED_COUNTS as GOSSIP_REFUSED_COUNTS
from daemon.network.libp2p.gossip_limits import BURST_MESSAGES, RATE_MESSAGES_PER_S
from daemon.network.network import LibP2PNetwork
from daemon.services.training.native.audit.fraud_proofs import PROTOCOL as EVIDENCE
from daemon.services.training.native.audit.fraud_proofs import SEND, Accusation, FraudProofs
from daemon.services.training.native.engine_context import NodePorts
from daemon.swarm.frames import frame
from daemon.swarm.lineage import Lineage
from daemon.swarm.messenger import (
    MESSAGES_AT_ONCE,
    MESSAGES_PER_S,
    PROTOCOL,
    REFUSED_COUNTS,
    Messenger,
)
from protocol.averaging.sum_audit import encode_evidence
from protocol.errors import Unreachable
from protocol.identity import PeerId, Signer
from protocol.journal import InputRefused, JournalEvent
from protocol.messages.base import Signed
from protocol.messages.envelope import AnyMessage, encode_signed, sign
from protocol.messages.round import HoldReport
from protocol.ports.offload import inline
from protocol.run.manifest import seal
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium
from tests.daemon.network.nodes import make_node, until_linked
from tests.protocol.averaging.summed_round import FOUR, PARAMETERS, SLICE, Summed, shifted
from tests.protocol.rounds import CHUNKS

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

LIED = Summed(wrong=shifted)
TOPIC = "hypergpu/test"
# This process holds both sides. Its memory grows by the bytes between the sides, and by what the
# allocator keeps.
GROWTH_BYTES = 48 << 20
STREAMS = 4


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Victim:
    """The parts of a node that read from peers: messages, gossip and fraud proofs."""

    def __init__(self, home: Path) -> None:
        self.events: list[JournalEvent] = []
        self.heard: list[PeerId] = []
        self.judged = 0
        self.network = make_node(home, 1)
        ports = NodePorts(
            network=self.network,
            disk=MemoryDisk(MemoryMedium()),
            offload=inline,
            record=self.events.append,
        )
        self.messenger = Messenger(self.network, LIED.run, self._deliver, ports.refuse)
        self.network.subscribe(TOPIC, self._judge, keep=False)
        lineage = Lineage(LIED.run, LIED.manifest, CHUNKS)
        lineage.add(LIED.certificate.raw)
        self.fraud_proofs = FraudProofs(
            me=self.network.peer,
            signed=seal(LIED.manifest),
            ports=ports,
            lineage=lineage,
            parameters=lambda: PARAMETERS,
        )

    async def _deliver(self, signed: Signed, _message: AnyMessage) -> None:
        self.heard.append(signed.peer)

    @property
    def refused(self) -> list[tuple[str, PeerId]]:
        """The refusals in the journal, as (reason, peer)."""
        events = [event for event in self.events if isinstance(event, InputRefused)]
        return [(event.reason, event.peer) for event in events]

    def _judge(self, _peer: PeerId, _data: bytes) -> bool:
        self.judged += 1
        return False


@asynccontextmanager
async def two_peers(home: Path) -> AsyncIterator[tuple[Victim, LibP2PNetwork, LibP2PNetwork]]:
    """The victim, the node that floods it, and another node."""
    victim = Victim(home)
    async with victim.network.running(), trio.open_nursery() as nursery:
        await nursery.start(victim.messenger.run)
        flooder, other = (make_node(home, seed, *victim.network.addresses) for seed in (2, 3))
        for node in (flooder, other):
            node.subscribe(TOPIC, lambda _peer, _data: True, keep=False)
        async with flooder.running(), other.running():
            await until_linked(victim.network, 2)
            yield victim, flooder, other
        nursery.cancel_scope.cancel()


HELD = HoldReport(plan=bytes(32), contributors=(0,))


async def deliver(node: LibP2PNetwork, signer: Signer, to: Victim) -> None:
    """Send one honest message and wait until the victim has heard it."""
    stream = await node.open_stream(to.network.peer, PROTOCOL)
    await stream.send_all(frame(encode_signed(sign(signer, LIED.run, HELD))))
    while signer.peer not in to.heard:
        await trio.sleep(0.01)
    await stream.aclose()


async def forge(flooder: LibP2PNetwork, victim: Victim) -> None:
    """Send messages with false signatures without end, until a newer stream replaces this one."""
    signed = sign(Signer((2).to_bytes(32, "big")), LIED.run, HELD)
    many = frame(encode_signed(Signed(signed.payload, signed.peer, bytes(64)))) * 200
    with suppress(Unreachable):
        stream = await flooder.open_stream(victim.network.peer, PROTOCOL)
        while True:
            await stream.send_all(many)


async def gossip(flooder: LibP2PNetwork, victim: Victim, count: int) -> None:
    """Send one frame with `count` signed messages of noise."""
    key, rng, rpc = (
        Ed25519PrivateKey.from_bytes((2).to_bytes(32, "big")),
        random.Random(1),
        rpc_pb2.RPC(),
    )
    for number in range(count):
        origin = ID.from_base58(flooder.peer).to_bytes()
        message = rpc_pb2.Message(
            from_id=origin,
            data=rng.randbytes(60),
            seqno=number.to_bytes(8, "big"),
            topicIDs=[TOPIC],
        )
        message.signature = key.sign(b"libp2p-pubsub:" + message.SerializeToString())
        rpc.publish.append(message)
    raw = rpc.SerializeToString()
    stream = await flooder.open_stream(victim.network.peer, "/meshsub/1.1.0")
    await stream.send_all(encode_uvarint(len(raw)) + raw)


async def accuse(flooder: LibP2PNetwork, victim: Victim, proof: bytes) -> bytes:
    """Accuse an honest member of a real round, and send the proof when the victim asks for it.

    Returns:
        The victim's answer; nothing when it refused the stream.
    """
    accusation = Accusation(peer=FOUR[0].peer, number=1, certificate=LIED.certificate.hash)
    stream = None
    try:
        stream = await flooder.open_stream(victim.network.peer, EVIDENCE)
        await stream.send_all(frame(msgspec.msgpack.encode(accusation)))
        answer = await stream.receive_some(1)
        if answer == SEND:
            await stream.send_all(frame(proof))
            await stream.receive_some(1)
        return answer
    except Unreachable:
        return b""
    finally:
        if stream is not None:
            await stream.aclose()


async def test_a_flood_is_rationed_and_other_peers_are_heard(tmp_path: Path) -> None:
    assert SLICE != 0, "the accused member is honest"
    with trio.fail_after(40):
        async with two_peers(tmp_path) as (victim, flooder, other):
            before, began = resident_bytes(), time.monotonic()
            async with trio.open_nursery() as nursery:
                for _ in range(STREAMS):
                    nursery.start_soon(forge, flooder, victim)
                while len(victim.refused) < MESSAGES_AT_ONCE // (1 + REFUSED_COUNTS):
                    await trio.sleep(0.01)
                await trio.sleep(0.5)
                with trio.fail_after(10):
                    await deliver(other, Signer((3).to_bytes(32, "big")), victim)
                nursery.cancel_scope.cancel()
            allowed = (MESSAGES_AT_ONCE + MESSAGES_PER_S * (time.monotonic() - began)) / (
                1 + REFUSED_COUNTS
            ) + STREAMS
            assert len(victim.refused) <= allowed
            assert {peer for _, peer in victim.refused} == {flooder.peer}

            began, count = time.monotonic(), int(BURST_MESSAGES) // 2
            await gossip(flooder, victim, count)
            while victim.judged + victim.network.refusals()["busy"] < count:
                await trio.sleep(0.01)
            allowed = (BURST_MESSAGES + RATE_MESSAGES_PER_S * (time.monotonic() - began)) / (
                1 + GOSSIP_REFUSED_COUNTS
            ) + 1
            assert 1 <= victim.judged <= allowed

            proof = encode_evidence(LIED.evidence(LIED.made.plan.borders[0], index=0))
            assert await accuse(flooder, victim, proof) == SEND
            refusal = ("bad_proof", flooder.peer)
            while refusal not in victim.refused:
                await trio.sleep(0.01)
            received = victim.network.traffic().control_received
            assert [await accuse(flooder, victim, proof) for _ in range(20)] == [b""] * 20
            assert victim.refused.count(refusal) == 1
            assert victim.network.traffic().control_received - received < len(proof), (
                "the victim read no further proof"
            )
            assert not victim.fraud_proofs.guilty

            assert resident_bytes() - before < GROWTH_BYTES
