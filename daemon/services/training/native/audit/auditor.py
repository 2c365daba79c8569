"""Audits reducers: sums a drawn chunk again, and convicts a reducer whose sum is wrong.

After each certificate, each member draws the chunks that it audits
(`protocol/averaging/sum_audit.py`) and asks the contributors for them. A contributor serves single
chunks of its last offer until it makes the next one. `fraud_proofs.py` keeps the proofs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import trio

from daemon.services.training.native.audit.fraud_proofs import FraudProofs
from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.exchange.inter_group_reduce import GroupSumSample
from daemon.services.training.native.exchange.result_buffer import ReceivedResults
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.averaging.judgment import claim_of, hands, is_right
from protocol.averaging.plan_sum import codec_of
from protocol.averaging.sum_audit import (
    MAX_PIECE_BYTES,
    MAX_PROOF,
    Evidence,
    Piece,
    check_piece,
    draw_audit_samples,
    piece_of,
    result_piece,
)
from protocol.certificates.certificate import OpenCertificate
from protocol.codec import codec_named
from protocol.contribution.offer import NOTHING, Offer
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.journal import Warned
from protocol.messages.base import Hash, Natural, Signed
from protocol.ports.byte_stream import ByteStream

PROTOCOL = "/hypergpu/audit/1"
REQUEST_BYTES = 128
PIECE_BYTES = MAX_PIECE_BYTES + MAX_PROOF * 40
# Chunks sent at once, to all peers and to one peer. Each chunk has 256 KB.
SENT_AT_ONCE, SENT_TO_PEER = 32, 4
# The timeout for one chunk. The audit skips a slower peer.
ANSWER_S = 20.0


class PieceRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Asks for a chunk of an offer. The answer is a `Piece`, or empty for a released offer."""

    plan: Hash
    chunk: Natural


class Auditor:
    """Runs one node's audits, and serves chunks to the audits of others."""

    def __init__(
        self,
        *,
        context: EngineContext,
        ports: NodePorts,
        fraud_proofs: FraudProofs,
        parameters: Callable[[], int],
    ) -> None:
        """`parameters` returns the size of the model, 0 until it is known."""
        self._run, self._signer = context.run, context.signer
        self._codec = codec_named(context.manifest.codec)
        self._network, self._offload = ports.network, ports.offload
        self._refuse, self._record = ports.refuse, ports.record
        self._fraud_proofs, self._parameters = fraud_proofs, parameters
        self._plan: Digest = b""
        self._offer: Offer = NOTHING
        self._turns = ReplyLimiter(SENT_TO_PEER, SENT_AT_ONCE, ports.network.source_of)
        ports.network.serve(PROTOCOL, self._serve_piece)

    # ---------------------------------------------------------------- serving

    def keep_offer(self, plan: Digest, offer: Offer) -> None:
        """Serve the chunks of this offer, and of no other, from now on."""
        self._plan, self._offer = plan, offer

    def release_offer(self) -> None:
        """Serve nothing: a new offer is about to replace the last one in memory."""
        self.keep_offer(b"", NOTHING)

    async def _serve_piece(self, stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            request = decode_as(PieceRequest, await FrameReader(stream).expect_frame(REQUEST_BYTES))
            async with self._turns.slot(stream.peer):
                answer = b""
                if request.plan == self._plan and self._offer.weight:
                    try:
                        answer = msgspec.msgpack.encode(
                            piece_of(
                                self._offer.encoded, self._offer.tree, self._codec, request.chunk
                            )
                        )
                    except ValueError as error:
                        raise PeerFault("malformed", str(error)) from None
                await stream.send_all(frame(answer))
                await stream.send_eof()
            return
        raise PeerFault(
            "timeout", f"the peer did not request and read a chunk within {ANSWER_S:g} s"
        )

    # ---------------------------------------------------------------- auditing

    async def audit(
        self,
        certificate: OpenCertificate,
        results: ReceivedResults,
        samples: Sequence[GroupSumSample],
        disputed: bool,
    ) -> None:
        """Draw the chunks that this node audits, and sum each of them again.

        Args:
            certificate: The certificate whose sums are audited.
            results: The results that this node received in that round.
            samples: Drawn chunks of other groups' sums that went into this node's slices.
            disputed: The majority computed another state than this node. Because a reducer may have
                sent this node another sum than the others, it audits a chunk of every slice.
        """
        for sample in samples:
            await self._audit_chunk(certificate, sample.chunk, sample.signed, sample.piece)
        for drawn in draw_audit_samples(self._signer, certificate, everywhere=disputed):
            if drawn.slice in results:
                signed, encoded = results[drawn.slice]
                chunk = drawn.chunk - certificate.plan.layout.slices[drawn.slice][0]
                codec = codec_of(certificate.plan, self._codec)
                reduced = await self._offload(partial(result_piece, encoded, codec, chunk))
                await self._audit_chunk(certificate, drawn.chunk, signed, reduced)

    async def _audit_chunk(
        self, certificate: OpenCertificate, chunk: int, signed: Signed, reduced: Piece
    ) -> None:
        if signed.peer in self._fraud_proofs.guilty:
            return
        try:
            claim = claim_of(certificate, signed, self._run)
            contributed = await self._collect(certificate, chunk, claim.contributors)
            if contributed is None:
                return
            evidence = Evidence(
                certificate=certificate.raw,
                result=signed,
                chunk=chunk,
                reduced=reduced,
                contributed=contributed,
            )
            if is_right(certificate, claim, self._codec, self._parameters(), evidence):
                return
            if claim.alone:
                await self._fraud_proofs.convict(evidence, certificate)
            else:
                self._suspect(certificate, claim.slice)
        except PeerFault as fault:
            # A contribution does not decode, although its reducer summed it.
            self._refuse(fault.reason, signed.peer, str(fault))

    def _suspect(self, certificate: OpenCertificate, index: int) -> None:
        names = ", ".join(hands(certificate, index))
        number = certificate.outcome.number
        self._record(
            Warned(
                code="WRONG_SUM",
                message=f"Slice {index} of round {number} is not the sum of its contributions."
                f" One of these peers sent a wrong value: {names}.",
            )
        )

    async def _collect(
        self, certificate: OpenCertificate, chunk: int, contributors: tuple[int, ...]
    ) -> tuple[Piece, ...] | None:
        """Collect each contributor's chunk; None if one is missing, which proves nothing."""
        plan, total = certificate.plan, certificate.plan.plan.borders[-1]
        pieces: dict[int, Piece] = {}

        async def ask(index: int) -> None:
            peer = plan.members[index]
            try:
                piece = await self._piece(peer, PieceRequest(plan=plan.digest, chunk=chunk))
                if piece is not None:
                    check_piece(piece, chunk, total, plan.offers[index].contribution)
                    pieces[index] = piece
            except PeerFault as fault:
                self._refuse(fault.reason, peer, str(fault))
            except Unreachable:
                return

        async with trio.open_nursery() as nursery:
            for index in contributors:
                nursery.start_soon(ask, index)
        return tuple(pieces[i] for i in contributors) if len(pieces) == len(contributors) else None

    async def _piece(self, peer: PeerId, request: PieceRequest) -> Piece | None:
        if peer == self._signer.peer:
            is_kept = request.plan == self._plan
            return (
                piece_of(self._offer.encoded, self._offer.tree, self._codec, request.chunk)
                if is_kept
                else None
            )
        with trio.move_on_after(ANSWER_S):
            stream = await self._network.open_stream(peer, PROTOCOL)
            try:
                await stream.send_all(frame(msgspec.msgpack.encode(request)))
                answer = await FrameReader(stream).expect_frame(PIECE_BYTES)
                return decode_as(Piece, answer) if answer else None
            finally:
                await stream.aclose()
        raise Unreachable(f"no chunk within {ANSWER_S:g} s")
