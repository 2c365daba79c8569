"""A peer that speaks every protocol of a run, and breaks its rules, beside a daemon under test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio
from msgspec.structs import replace

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.swarm.chain_sync import read_chain
from daemon.swarm.frames import frame
from daemon.swarm.manifest_exchange import fetch_manifest
from daemon.swarm.messenger import PROTOCOL
from protocol.certificates.certificate import Certificate
from protocol.digest import Digest, digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, Signer
from protocol.messages.base import Message
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import decode_signed, encode_signed, open_as, payload_of, sign
from protocol.messages.round import Vote
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from protocol.run.manifest import Manifest
from tests.e2e.swarm import LOOPBACK, Daemon

# A beacon arrives every five seconds.
HEAR_S = 30.0


class Stranger:
    """A peer that is connected to `target`, and knows its run and its bulk endpoint."""

    def __init__(self, target: Daemon, network: LibP2PNetwork, signer: Signer, run: Digest) -> None:
        self.target, self.network, self.signer, self.run = target, network, signer, run
        self.peer: PeerId = target.now().you.peer
        self.endpoint: Endpoint | None = None
        self.heard = trio.Event()
        self._serial = 0

    def listen(self, peer: PeerId, data: bytes) -> bool:
        """Receive gossip; only the target's own beacon matters."""
        try:
            signed = decode_signed(data)
            if signed.peer == self.peer:
                self.endpoint = open_as(Beacon, signed, self.run).endpoint
                self.heard.set()
        except PeerFault:
            return False
        return True

    @property
    def beacons(self) -> str:
        return f"hypergpu/{self.run.hex()}/beacons"

    @property
    def certificates(self) -> str:
        return f"hypergpu/{self.run.hex()}/certificates"

    def beacon(self, *, tip: Digest | None = None, number: int = 0) -> Beacon:
        """Return a beacon that claims to be a node at `tip`; by default at genesis."""
        self._serial += 1
        return Beacon(
            serial=self._serial,
            name="stranger",
            role="node",
            number=number,
            tip=tip or self.run,
            view=0,
            phase="train",
            samples=0,
            loss=None,
            samples_per_second=0.0,
            device="",
            endpoint=self.network.endpoint,
        )

    async def manifest(self) -> Manifest:
        return (await fetch_manifest(self.network, self.peer)).open()

    def signed(
        self, message: Message, *, signer: Signer | None = None, run: Digest | None = None
    ) -> bytes:
        """Return the signed message as bytes on the wire."""
        return encode_signed(sign(signer or self.signer, run or self.run, message))

    async def say(self, *frames: bytes, protocol: str = PROTOCOL) -> None:
        """Send raw bytes on one stream, and wait until the target ends it.

        The target may end the stream while this still sends.
        """
        stream: ByteStream = await self.network.open_stream(self.peer, protocol)
        try:
            for piece in frames:
                await stream.send_all(piece)
            await stream.send_eof()
            while await stream.receive_some(65536):
                pass
        except Unreachable:
            pass
        finally:
            await stream.aclose()

    async def tell(self, message: Message) -> None:
        """Send a message with a valid signature."""
        await self.say(frame(self.signed(message)))

    async def forged_certificate(self) -> bytes:
        """Return the newest real certificate with another state than the one in its votes."""
        certificates: list[bytes] = []

        async def keep(raw: bytes) -> bool:
            certificates.append(raw)
            return True

        await read_chain(
            self.network, self.peer, self.run, max(1, self.target.now().run.number), keep
        )
        certificate = msgspec.msgpack.decode(certificates[-1], type=Certificate)
        vote = msgspec.msgpack.decode(certificate.outcome, type=Vote)
        return msgspec.msgpack.encode(
            replace(certificate, outcome=payload_of(replace(vote, state=digest(b"forged"))))
        )

    async def count(self, reason: str) -> int:
        """How often the target refused something for `reason`, by its status."""
        return (await trio.to_thread.run_sync(self.target.now)).refusals[reason]


@asynccontextmanager
async def stranger_at(
    target: Daemon, root: Path, prepare: Callable[[Stranger], None] = lambda _: None
) -> AsyncIterator[Stranger]:
    """A stranger that has exchanged beacons with the target.

    `prepare` may serve protocols: a network that runs adds none.
    """
    secret = os.urandom(32)
    status = await trio.to_thread.run_sync(target.now)
    settings = NetworkSettings(listen_host=LOOPBACK, join=(status.you.addresses[0],))
    network = LibP2PNetwork(settings, secret, load_or_make(root / "stranger.pem", "stranger"))
    stranger = Stranger(target, network, Signer(secret), bytes.fromhex(status.run.run))
    network.subscribe(stranger.beacons, stranger.listen)
    network.subscribe(stranger.certificates, lambda _peer, _data: True)
    prepare(stranger)
    async with network.running():
        with trio.fail_after(HEAR_S):
            await stranger.heard.wait()
        await stranger.tell(stranger.beacon())
        yield stranger
