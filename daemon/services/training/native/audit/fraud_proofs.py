"""Keeps the proofs that members summed wrongly, announces them, and verifies those of others.

- A guilty peer neither offers nor leads here, even after a restart. Its certificates stay valid.
- An accusation comes before its proof. It names the accused peer and the certificate. A peer that
  knows the accusation receives no proof. A peer without the certificate answers "later", and is
  asked again after the next certificate. A newcomer that has caught up thus receives each proof
  once, from its first neighbour.
- Only certificates of this node's lineage count: anyone can invent a round among its own keys, and
  a guilty peer in it.
- While this node runs, it ignores a peer that sent a wrong proof, and excludes that peer from its
  plans. An honest node passes on only proofs that it has checked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import trio
from msgspec.structs import replace

from daemon.services.training.native.engine_context import NodePorts
from daemon.services.training.native.state.disk_queries import readable_certificates
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.lineage import Lineage
from protocol.averaging.judgment import Judgment, judge
from protocol.averaging.sum_audit import (
    MAX_EVIDENCE_BYTES,
    Evidence,
    decode_evidence,
    encode_evidence,
)
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.digest import Digest, digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.journal import Warned
from protocol.messages.base import Hash, Id, Natural
from protocol.ports.byte_stream import ByteStream
from protocol.ports.disk import PROOFS_KEPT, DiskFull
from protocol.rate_limiter import KEPT_PEERS, RateLimiters
from protocol.run.manifest import SignedManifest

PROTOCOL = "/hypergpu/evidence/2"
ACCUSATION_BYTES = 256
# The timeout for an answer or one proof. The node skips a slower peer.
ANSWER_S = 20.0
# Proofs received at once. The largest take 6 MB together.
RECEIVED_AT_ONCE = 4
# The limit for one peer is twice the proofs that it can know. Each accusation may read the disk.
ACCUSATIONS_PER_S, ACCUSATIONS_AT_ONCE = 1.0, 2.0 * PROOFS_KEPT

ENOUGH, LATER, SEND = b"\0", b"\1", b"\2"
"""The answers to an accusation: it is known or unwanted; ask again later; send the proof."""


class Accusation(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """Announces a proof: the accused peer, and the certificate that the proof is about."""

    peer: Id
    number: Natural
    certificate: Hash


class FraudProofs:
    """The proofs of one node against peers that summed wrongly."""

    def __init__(
        self,
        *,
        me: PeerId,
        signed: SignedManifest,
        ports: NodePorts,
        lineage: Lineage,
        parameters: Callable[[], int],
    ) -> None:
        """`parameters` returns the size of the model, 0 until it is known."""
        self._me, self._run, self._manifest = me, signed.run, signed.open()
        self._lineage, self._parameters = lineage, parameters
        self._network, self._disk, self._offload = ports.network, ports.disk, ports.offload
        self._refuse, self._record = ports.refuse, ports.record
        self._guilty: OrderedDict[PeerId, Judgment] = OrderedDict()
        self._kept: dict[PeerId, Digest] = {}
        self._unwritten: dict[PeerId, bytes] = {}
        # By link (peer, start time): the guilty peers that this node has announced there.
        self._announced: dict[tuple[PeerId, float], set[PeerId]] = {}
        self._false: OrderedDict[PeerId, str] = OrderedDict()
        self._receiving_from: set[PeerId] = set()
        self._announce_lock = trio.Lock()
        self._rate_limiters = RateLimiters(per_s=ACCUSATIONS_PER_S, burst=ACCUSATIONS_AT_ONCE)
        ports.network.serve(PROTOCOL, self._receive)

    @property
    def guilty(self) -> Mapping[PeerId, Judgment]:
        """The guilty peers with their judgments. The mapping changes with each new proof."""
        return self._guilty

    def distrusted(self, peer: PeerId) -> str:
        """Return why this node's plans exclude a false accuser; "" if they do not."""
        return self._false.get(peer, "")

    # ---------------------------------------------------------------- storage

    async def resume(self) -> None:
        """Read the proofs on disk and check each of them again. The model must be known."""
        for name in await self._disk.proofs(self._run):
            data = await self._disk.load_proof(self._run, name)
            if data is None:
                # The proof is damaged, and the disk has reported the damage.
                continue
            try:
                evidence = decode_evidence(data)
                judgment = await self._offload(partial(self._judge, evidence, None))
            except PeerFault as fault:
                self._warn(
                    f"Proof {name.hex()[:12]} on disk is not valid for this version: {fault}"
                )
                continue
            self._guilty[judgment.peer], self._kept[judgment.peer] = judgment, name
            self._refuse("wrong_sum", judgment.peer, f"proved before this start: {judgment}")

    async def convict(self, evidence: Evidence, certificate: OpenCertificate) -> None:
        """Check a proof about a certificate of this node's lineage, keep it, and announce it.

        Raises `PeerFault` for a proof that is not valid.
        """
        judgment = await self._offload(lambda: self._judge(evidence, certificate))
        if judgment.peer in self._guilty:
            return
        self._guilty[judgment.peer] = judgment
        self._refuse("wrong_sum", judgment.peer, str(judgment))
        # The stored proof has this node's copy of the certificate, which was verified.
        self._unwritten[judgment.peer] = encode_evidence(
            replace(evidence, certificate=certificate.raw)
        )
        while len(self._guilty) > PROOFS_KEPT:
            forgotten, _ = self._guilty.popitem(last=False)
            self._kept.pop(forgotten, None)
            self._unwritten.pop(forgotten, None)
        await self.announce()

    def _judge(self, evidence: Evidence, known: OpenCertificate | None) -> Judgment:
        return judge(evidence, self._run, self._manifest, self._parameters(), known)

    async def _write(self) -> None:
        for peer, data in list(self._unwritten.items()):
            try:
                await self._disk.save_proof(self._run, data)
            except DiskFull as full:
                self._warn(
                    f"A proof was not written: {full}. The next certificate starts another attempt."
                )
                return
            self._kept[peer] = digest(data)
            self._unwritten.pop(peer, None)

    def _warn(self, message: str) -> None:
        self._record(Warned(code="EVIDENCE", message=message))

    # ---------------------------------------------------------------- receiving

    async def _receive(self, stream: ByteStream) -> None:
        peer = stream.peer
        if peer in self._false:
            raise PeerFault("bad_proof", self._false[peer])
        if not self._rate_limiters.of(peer, trio.current_time()).spend(1.0, trio.current_time()):
            raise PeerFault("busy", f"more than {ACCUSATIONS_AT_ONCE:g} accusations")
        reader = FrameReader(stream)
        with trio.move_on_after(ANSWER_S):
            accusation = decode_as(Accusation, await reader.expect_frame(ACCUSATION_BYTES))
            if accusation.peer in self._guilty or accusation.peer == self._me:
                await stream.send_all(ENOUGH)
                return
            certificate = await self._certificate(accusation) if self._parameters() else None
            if (
                certificate is None
                or peer in self._receiving_from
                or len(self._receiving_from) >= RECEIVED_AT_ONCE
            ):
                await stream.send_all(LATER)
                return
            self._receiving_from.add(peer)
            try:
                await stream.send_all(SEND)
                data = await reader.expect_frame(MAX_EVIDENCE_BYTES)
                # The sender need not wait until this node has checked and announced the proof.
                await stream.send_eof()
                await self._verify(data, accusation, certificate)
            except PeerFault as fault:
                self._false[peer] = f"it accused {accusation.peer} with an invalid proof: {fault}"
                while len(self._false) > KEPT_PEERS:
                    self._false.popitem(last=False)
                self._refuse(fault.reason, peer, self._false[peer])
            finally:
                self._receiving_from.discard(peer)

    async def _verify(
        self, data: bytes, accusation: Accusation, certificate: OpenCertificate
    ) -> None:
        evidence = decode_evidence(data)
        if evidence.result.peer != accusation.peer:
            raise PeerFault("bad_proof", "the proof and its accusation name different peers")
        await self.convict(evidence, certificate)

    async def _certificate(self, accusation: Accusation) -> OpenCertificate | None:
        """Return the certificate that an accusation names, from the lineage or from disk."""
        made = self._lineage.entry(accusation.certificate)
        if made is not None:
            return made.certificate
        for raw in await readable_certificates(self._disk, self._run, accusation.number):
            certificate = open_certificate(raw, self._run, self._manifest, None, trusted=True)
            if certificate.hash == accusation.certificate:
                return certificate
        return None

    # ---------------------------------------------------------------- announcing

    async def announce(self) -> None:
        """Announce to each neighbour every guilty peer that it has not heard of from this node.

        The engine calls this after each certificate. While no peer is guilty it does nothing.
        """
        if not self._guilty:
            return
        async with self._announce_lock:
            await self._write()
            links = {
                (link.peer, link.since_s)
                for link in self._network.links()
                if link.peer not in self._guilty
            }
            self._announced = {link: self._announced.get(link, set()) for link in sorted(links)}
            async with trio.open_nursery() as nursery:
                for (peer, _), announced in self._announced.items():
                    if not announced >= self._guilty.keys():
                        nursery.start_soon(self._announce_to, peer, announced)

    async def _announce_to(self, peer: PeerId, announced: set[PeerId]) -> None:
        """Announce to one neighbour. An observer has no such protocol; a lost peer hears later."""
        for judgment in list(self._guilty.values()):
            if judgment.peer not in announced:
                try:
                    with trio.fail_after(ANSWER_S):
                        done = await self._accuse(peer, judgment)
                except (Unreachable, trio.TooSlowError):
                    return
                if done:
                    announced.add(judgment.peer)

    async def _accuse(self, peer: PeerId, judgment: Judgment) -> bool:
        """Accuse a peer to a neighbour. Returns whether the neighbour needs nothing more."""
        stream = await self._network.open_stream(peer, PROTOCOL)
        try:
            accusation = Accusation(
                peer=judgment.peer, number=judgment.number, certificate=judgment.certificate
            )
            await stream.send_all(frame(msgspec.msgpack.encode(accusation)))
            answer = await stream.receive_some(1)
            if answer != SEND:
                return answer != LATER
            data = await self._proof(judgment.peer)
            if data is not None:
                await stream.send_all(frame(data))
                # The neighbour ends the stream once it has the proof.
                await stream.receive_some(1)
            return True
        finally:
            await stream.aclose()

    async def _proof(self, peer: PeerId) -> bytes | None:
        if peer in self._kept:
            return await self._disk.load_proof(self._run, self._kept[peer])
        return self._unwritten.get(peer)
