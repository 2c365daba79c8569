"""A stranger that certifies among fresh keys beside a real run, in random shapes."""

from __future__ import annotations

import random

import msgspec
import trio
from msgspec.structs import replace

from daemon.swarm.chain_sync import PROTOCOL as CHAIN
from daemon.swarm.chain_sync import ChainReply, ChainRequest, pack_record, read_chain
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.lineage import Lineage
from daemon.swarm.state_transfer import PROTOCOL as STATE
from protocol.averaging.vector_layout import chunk_count
from protocol.certificates.certificate import Certificate
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.identity import Signer
from protocol.ports.byte_stream import ByteStream
from protocol.run.manifest import Manifest
from simulator.faults.forgery import Forgery, forge, name_of, own_record
from tests.e2e.stranger import Stranger


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What one forged certificate looks like."""

    keys: int
    samples: int
    step_norm: float
    # Whether the keys make themselves the founders of the record that they name.
    own_record: bool
    # "tip" and "before" are real certificates; "genesis" is the run's, and "nowhere" is unknown.
    parent: str
    # Whether one vote is damaged, repeated or left out.
    damage: str


def random_shape(rng: random.Random, most_samples: int) -> Shape:
    return Shape(
        keys=rng.choice((2, 2, 3, 5, 10, 30)),
        samples=rng.choice((1, 1000, most_samples)),
        step_norm=rng.choice((0.0, 1.0, 1e6, 1e300)),
        own_record=rng.random() < 0.5,
        parent=rng.choice(("tip", "tip", "tip", "before", "genesis", "nowhere", "forged")),
        damage=rng.choice(("", "", "", "signature", "twice", "missing")),
    )


class Forger:
    """Makes certificates of fresh keys after a real tip, and serves them."""

    def __init__(self, stranger: Stranger, seed: int) -> None:
        self.rng = random.Random(seed)
        self.records: list[tuple[int, bytes]] = []
        self.tip: tuple[Digest, int] = (stranger.run, 0)
        # How often somebody asked for a forged state.
        self.fetched = 0
        self.forged: set[Digest] = set()
        self._stranger = stranger
        # The forged tip of before, from which a branch of forgeries goes on.
        self._last: Tip | None = None
        stranger.network.serve(CHAIN, self._serve_chain)
        stranger.network.serve(STATE, self._serve_state)

    def forge(self, lineage: Lineage, manifest: Manifest, parameters: int) -> bytes:
        """Return a certificate of a random shape that fresh keys plan, lead and sign."""
        run, rng = self._stranger.run, self.rng
        shape = random_shape(rng, manifest.limits.max_samples)
        signers = [Signer(rng.randbytes(32)) for _ in range(shape.keys)]
        parent = self._parent(lineage, shape)
        forgery = Forgery(state=rng.randbytes(32), samples=shape.samples, step_norm=shape.step_norm)
        record = own_record(run, manifest, signers) if shape.own_record else None
        raw = forge(run, manifest, parent, signers, chunk_count(parameters), forgery, record)
        name, number = name_of(run, raw), parent.number + 1
        self._last = replace(parent, hash=name, number=number)
        raw = damaged(raw, shape.damage)
        self.forged.add(name)
        self.tip = (name, number)
        self.records.append((number, pack_record([raw])))
        return raw

    def _parent(self, lineage: Lineage, shape: Shape) -> Tip:
        tip, path = lineage.best, lineage.path(lineage.root, lineage.best)
        match shape.parent:
            case "before" if len(path) > 1:
                return lineage.tip(path[-2].hash) or tip
            case "genesis":
                return lineage.root
            case "nowhere":
                return replace(tip, hash=self.rng.randbytes(32))
            case "forged":
                return self._last or tip
            case _:
                return tip

    async def _serve_chain(self, stream: ByteStream) -> None:
        request = decode_as(ChainRequest, await FrameReader(stream).expect_frame(256))
        records = [record for number, record in self.records if number >= request.first][-256:]
        reply = ChainReply(tip=self.tip[0], number=self.tip[1], age_s=0.0, count=len(records))
        await stream.send_all(frame(msgspec.msgpack.encode(reply)))
        for record in records:
            await stream.send_all(frame(record))
        await stream.send_eof()

    async def _serve_state(self, stream: ByteStream) -> None:
        asked = await FrameReader(stream).expect_frame(4096)
        self.fetched += any(name in asked for name in self.forged)
        await stream.send_eof()

    async def attack(
        self, lineage: Lineage, manifest: Manifest, parameters: int, pause_s: float
    ) -> None:
        """Publish one forgery, and a beacon that claims its tip."""
        stranger = self._stranger
        raw = self.forge(lineage, manifest, parameters)
        await stranger.network.publish(stranger.certificates, raw)
        beacon = stranger.beacon(tip=self.tip[0], number=self.tip[1])
        await stranger.network.publish(stranger.beacons, stranger.signed(beacon))
        await trio.sleep(pause_s)


def damaged(raw: bytes, damage: str) -> bytes:
    """Return a certificate with one vote damaged, repeated or left out."""
    certificate = msgspec.msgpack.decode(raw, type=Certificate)
    (peer, signature), *rest = certificate.votes
    votes = {
        "": certificate.votes,
        "signature": ((peer, bytes(byte ^ 1 for byte in signature)), *rest),
        "twice": ((peer, signature), (peer, signature), *rest),
        "missing": tuple(rest),
    }[damage]
    return msgspec.msgpack.encode(replace(certificate, votes=votes))


async def certificates_of(stranger: Stranger, manifest: Manifest) -> Lineage:
    """Return the daemon's certificates."""
    lineage = Lineage(stranger.run, manifest)

    async def keep(raw: bytes) -> bool:
        lineage.add(raw)
        return True

    await read_chain(stranger.network, stranger.peer, stranger.run, 1, keep)
    return lineage
