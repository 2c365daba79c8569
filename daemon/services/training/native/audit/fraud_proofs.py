"""Who was proved to have summed wrongly: kept on disk, told to whoever does not know it, and
believed of nobody without looking.

Rules.
- Whoever is guilty neither offers nor leads here, after a restart too. What was certified stays certified.
- A charge comes before a proof: who, and by which certificate. Who knows it already is sent nothing; who does not know the certificate yet says
  so, and is asked again after the next one. So a newcomer hears of every liar from its first neighbour, once, when it has caught up.
- Only certificates of our own lineage count: anybody can make up a round among keys of its own, and a liar in it.
- Who brings a proof that proves nothing is not heard again and leaves our plans, as long as this node runs: nobody passes on what it did not check.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec
import trio
from msgspec.structs import replace

from daemon.services.training.native.node_context import NodePorts
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
CHARGE_BYTES = 256
# For an answer or one proof: a peer that takes longer is left out.
ANSWER_S = 20.0
# Proofs on their way to us: 6 MB of the largest.
HEARD_AT_ONCE = 4
# From one peer, and each may read the disk: all that it can know, twice over.
CHARGES_PER_S, CHARGES_AT_ONCE = 1.0, 2.0 * PROOFS_KEPT

ENOUGH, LATER, SEND = b"\0", b"\1", b"\2"
"""Answers to a charge: known, or not wanted; not yet; the proof, please."""


class Accusation(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a proof is about, before it."""

    peer: Id
    number: Natural
    certificate: Hash


class FraudProofs:
    """One node's knowledge of who lied. `guilty` is read by whoever decides with whom to work."""

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
        self._kept: dict[PeerId, Digest] = {}  # under which name the proof is on disk
        self._unwritten: dict[PeerId, bytes] = {}  # proofs that the disk did not take
        # By neighbour and since when it is one.
        self._told: dict[tuple[PeerId, float], set[PeerId]] = {}
        self._false: OrderedDict[PeerId, str] = OrderedDict()
        self._hearing: set[PeerId] = set()
        self._telling = trio.Lock()
        self._allowances = RateLimiters(per_s=CHARGES_PER_S, burst=CHARGES_AT_ONCE)
        ports.network.serve(PROTOCOL, self._hear)

    @property
    def guilty(self) -> Mapping[PeerId, Judgment]:
        return self._guilty

    def distrusted(self, peer: PeerId) -> str:
        """Why a peer that accused falsely is left out of our plans, or nothing."""
        return self._false.get(peer, "")

    # -------------------------------------------------------------------------------------------- remembering

    async def recall(self) -> None:
        """Take up what earlier lives proved.

        Each proof is checked again; the model must be known.
        """
        for name in await self._disk.proofs(self._run):
            data = await self._disk.load_proof(self._run, name)
            if data is None:
                continue  # damaged, as the disk has said
            try:
                evidence = decode_evidence(data)
                verdict = await self._offload(lambda evidence=evidence: self._judge(evidence, None))  # type: ignore[misc]
            except PeerFault as fault:
                self._warn(
                    f"proof {name.hex()[:12]} on disk proves nothing to this version: {fault}"
                )
                continue
            self._guilty[verdict.peer], self._kept[verdict.peer] = verdict, name
            self._refuse("wrong_sum", verdict.peer, f"proved before this start: {verdict}")

    async def convict(self, evidence: Evidence, certificate: OpenCertificate) -> None:
        """Check a proof about this certificate of our lineage; name who is guilty, write it down,
        tell everybody.

        Raises `PeerFault` when it proves nothing.
        """
        verdict = await self._offload(lambda: self._judge(evidence, certificate))
        if verdict.peer in self._guilty:
            return
        self._guilty[verdict.peer] = verdict
        self._refuse("wrong_sum", verdict.peer, str(verdict))
        # Our copy, which was verified.
        self._unwritten[verdict.peer] = encode_evidence(
            replace(evidence, certificate=certificate.raw)
        )
        while len(self._guilty) > PROOFS_KEPT:
            forgotten, _ = self._guilty.popitem(last=False)
            self._kept.pop(forgotten, None)
            self._unwritten.pop(forgotten, None)
        await self.tell()

    def _judge(self, evidence: Evidence, known: OpenCertificate | None) -> Judgment:
        return judge(evidence, self._run, self._manifest, self._parameters(), known)

    async def _write(self) -> None:
        for peer, data in list(self._unwritten.items()):
            try:
                await self._disk.save_proof(self._run, data)
            except DiskFull as full:
                self._warn(
                    f"a proof was not written, and is tried again after the next certificate: {full}"
                )
                return
            self._kept[peer] = digest(data)
            self._unwritten.pop(peer, None)

    def _warn(self, message: str) -> None:
        self._record(Warned(code="EVIDENCE", message=message))

    # -------------------------------------------------------------------------------------------- hearing

    async def _hear(self, stream: ByteStream) -> None:
        peer = stream.peer
        if peer in self._false:
            raise PeerFault("bad_proof", self._false[peer])
        if not self._allowances.of(peer, trio.current_time()).take(1.0, trio.current_time()):
            raise PeerFault("busy", f"more than {CHARGES_AT_ONCE:g} charges")
        reader = FrameReader(stream)
        with trio.move_on_after(ANSWER_S):
            charge = decode_as(Accusation, await reader.expect_frame(CHARGE_BYTES))
            if charge.peer in self._guilty or charge.peer == self._me:
                await stream.send_all(ENOUGH)
                return
            certificate = await self._certificate(charge) if self._parameters() else None
            if certificate is None or peer in self._hearing or len(self._hearing) >= HEARD_AT_ONCE:
                await stream.send_all(LATER)
                return
            self._hearing.add(peer)
            try:
                await stream.send_all(SEND)
                data = await reader.expect_frame(MAX_EVIDENCE_BYTES)
                # Before the proof is checked and passed on: who told us need not wait for that.
                await stream.send_eof()
                await self._believe(data, charge, certificate)
            except PeerFault as fault:
                self._false[peer] = (
                    f"it accused {charge.peer}, and what it brought proves nothing: {fault}"
                )
                while len(self._false) > KEPT_PEERS:
                    self._false.popitem(last=False)
                self._refuse(fault.reason, peer, self._false[peer])
            finally:
                self._hearing.discard(peer)

    async def _believe(self, data: bytes, charge: Accusation, certificate: OpenCertificate) -> None:
        evidence = decode_evidence(data)
        if evidence.result.peer != charge.peer:
            raise PeerFault("bad_proof", "it is about somebody else than the charge")
        await self.convict(evidence, certificate)

    async def _certificate(self, charge: Accusation) -> OpenCertificate | None:
        """The one that the charge names, when it is in our lineage or was in an earlier life's."""
        made = self._lineage.entry(charge.certificate)
        if made is not None:
            return made.certificate
        for raw in await readable_certificates(self._disk, self._run, charge.number):
            certificate = open_certificate(raw, self._run, self._manifest, None, trusted=True)
            if certificate.hash == charge.certificate:
                return certificate
        return None

    # -------------------------------------------------------------------------------------------- telling

    async def tell(self) -> None:
        """Tell every neighbour of everybody it has not heard of from us.

        Called after each certificate; does nothing where nobody is guilty.
        """
        if not self._guilty:
            return
        async with self._telling:
            await self._write()
            links = {
                (link.peer, link.since_s)
                for link in self._network.links()
                if link.peer not in self._guilty
            }
            self._told = {link: self._told.get(link, set()) for link in sorted(links)}
            async with trio.open_nursery() as nursery:
                for (peer, _), told in self._told.items():
                    if not told >= self._guilty.keys():
                        nursery.start_soon(self._tell, peer, told)

    async def _tell(self, peer: PeerId, told: set[PeerId]) -> None:
        """An observer serves no such protocol, and who is gone hears it from others."""
        for verdict in list(self._guilty.values()):
            if verdict.peer not in told:
                try:
                    with trio.fail_after(ANSWER_S):
                        done = await self._charge(peer, verdict)
                except (Unreachable, trio.TooSlowError):
                    return
                if done:
                    told.add(verdict.peer)

    async def _charge(self, peer: PeerId, verdict: Judgment) -> bool:
        """Whether it need not be told again."""
        stream = await self._network.open_stream(peer, PROTOCOL)
        try:
            charge = Accusation(
                peer=verdict.peer, number=verdict.number, certificate=verdict.certificate
            )
            await stream.send_all(frame(msgspec.msgpack.encode(charge)))
            answer = await stream.receive_some(1)
            if answer != SEND:
                return answer != LATER
            data = await self._proof(verdict.peer)
            if data is not None:
                await stream.send_all(frame(data))
                await stream.receive_some(1)  # until it was heard
            return True
        finally:
            await stream.aclose()

    async def _proof(self, peer: PeerId) -> bytes | None:
        if peer in self._kept:
            return await self._disk.load_proof(self._run, self._kept[peer])
        return self._unwritten.get(peer)
