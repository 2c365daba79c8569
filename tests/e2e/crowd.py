"""Many keys behind few connections: real libp2p nodes, each of which signs beacons for many peers.

    python -m tests.e2e.crowd HOSTS KEYS

Each of the HOSTS (addresses separated by commas) is one node; KEYS peers speak through each. Prints
the nodes' addresses in one line, then one line whenever every key has spoken.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.node.run_choice import seal_run
from daemon.swarm.manifest_exchange import serve_manifest
from protocol.identity import Signer
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import encode_signed, sign
from protocol.run.manifest import Manifest

OWNER = Signer(bytes(32))
SIGNED = seal_run(Manifest(name="crowd", task="none", rules=4), OWNER)
# Twice as often as the members of a run of a thousand do.
EVERY_S = 20.0
BEACONS = f"hypergpu/{SIGNED.run.hex()}/beacons"


class Voice:
    """One key that speaks through a node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._secret = hashlib.sha256(name.encode()).digest()
        self._signer = Signer(self._secret)
        self._pair = create_new_key_pair(self._secret)
        self._serial = 0

    def message(self) -> rpc_pb2.Message:
        """Return the gossip message of its next beacon, as its own node would send it."""
        self._serial = time.time_ns()
        beacon = Beacon(
            serial=self._serial,
            name=self.name,
            role="node",
            number=0,
            tip=SIGNED.run,
            view=0,
            phase="train",
            samples=100,
            loss=None,
            samples_per_second=50.0,
            device="NVIDIA GeForce RTX 4090, 24 GB",
            endpoint=None,
        )
        made = rpc_pb2.Message(
            data=encode_signed(sign(self._signer, SIGNED.run, beacon)),
            topicIDs=[BEACONS],
            from_id=ID.from_pubkey(self._pair.public_key).to_bytes(),
            seqno=self._serial.to_bytes(8, "big"),
        )
        signed = PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString()
        made.signature = self._pair.private_key.sign(signed)
        made.key = self._pair.public_key.serialize()
        return made


async def ignore(_forwarder: ID, _message: rpc_pb2.Message) -> None:
    """Drop a message: forty nodes that check a thousand keys would need cores of their own."""
    await trio.lowlevel.checkpoint()


async def speak(network: LibP2PNetwork, voices: list[Voice]) -> None:
    """Send the beacons of all voices to every neighbour, evenly over `EVERY_S`, until cancelled.

    They go past the mesh, as a node that floods sends them.
    """
    pubsub = network._gossip._pubsub
    assert pubsub is not None
    pubsub.push_msg = ignore  # type: ignore[method-assign]
    while True:
        for voice in voices:
            rpc = rpc_pb2.RPC(publish=[voice.message()])
            for queue in list(pubsub.peer_queues.values()):
                queue.push(rpc)
            await trio.sleep(EVERY_S / len(voices))


async def main(hosts: list[str], keys: int) -> None:
    """Run the crowd until killed."""
    addresses: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        certificate = load_or_make(Path(folder) / "crowd.pem", "crowd")
        async with trio.open_nursery() as nursery:

            async def live(i: int, host: str) -> None:
                secret = hashlib.sha256(f"node {i}".encode()).digest()
                settings = NetworkSettings(listen_host=host, bulk=False)
                network = LibP2PNetwork(settings, secret, certificate)
                network.subscribe(BEACONS, lambda _peer, _data: True, keep=False)
                serve_manifest(network, SIGNED, lambda *_: None, lambda _event: None)
                voices = [Voice(f"peer-{i}-{k}") for k in range(keys)]
                async with network.running():
                    addresses.append(network.addresses[0])
                    await speak(network, voices)

            for i, host in enumerate(hosts):
                nursery.start_soon(live, i, host)
            while len(addresses) < len(hosts):
                await trio.sleep(0.1)
            print(" ".join(addresses), flush=True)
            while True:
                await trio.sleep(EVERY_S)
                print("all keys have spoken", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1].split(","), int(sys.argv[2]))
