"""Serves this node's offers to voters that audit the work, and fetches those of others.

A voter asks for runs of chunks after the certificate, when the contributor already makes its next
offer. So a contributor keeps a copy of its last offers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from daemon.services.training.native.engine_context import NodePorts
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.audit.draw import CHUNKS_IN_ROW
from protocol.averaging.sum_audit import MAX_PIECE_BYTES, MAX_PROOF
from protocol.codec import Codec, chunk_bytes
from protocol.contribution.offer import Offer
from protocol.digest import Digest, Levels, leaves_of, range_proof, root_from_range
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.messages.base import Hash, Natural
from protocol.ports.byte_stream import ByteStream

PROTOCOL = "/hypergpu/work/1"
# The offers that are kept: that of the last certificate, and that of the round in progress.
OFFERS_KEPT = 2
# An eighth of a model of 8 billion parameters.
MAX_RUNS = 1 << 15
REQUEST_BYTES = 16 * MAX_RUNS
RUN_BYTES = CHUNKS_IN_ROW * MAX_PIECE_BYTES + MAX_PROOF * 40 + 64
# The runs that are sent at once, to all peers and to one peer.
SENT_AT_ONCE, SENT_TO_PEER = 8, 2
# The timeout for one run. The audit skips a slower peer.
RUN_S = 20.0


class WorkRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Asks for runs of chunks of an offer, each from a first chunk on."""

    plan: Hash
    runs: Annotated[tuple[tuple[Natural, Natural], ...], Meta(max_length=MAX_RUNS)]


class ChunkRun(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Chunks [first, first + n) of an offer, with their proof up to the signed root."""

    data: Annotated[bytes, Meta(max_length=CHUNKS_IN_ROW * MAX_PIECE_BYTES)]
    proof: Annotated[tuple[Hash, ...], Meta(max_length=MAX_PROOF)]


class _KeptOffer(msgspec.Struct, frozen=True, kw_only=True):
    encoded: bytes
    tree: Levels


class Contributions:
    """The last offers of one node, and its way to those of others."""

    def __init__(self, ports: NodePorts, codec: Codec) -> None:
        self._network, self._offload, self._codec = ports.network, ports.offload, codec
        self._kept: OrderedDict[Digest, _KeptOffer] = OrderedDict()
        self._turns = ReplyLimiter(SENT_TO_PEER, SENT_AT_ONCE, ports.network.source_of)
        ports.network.serve(PROTOCOL, self._serve)

    async def keep(self, plan: Digest, offer: Offer) -> None:
        """Keep a copy of the offer that this node sends in the round of `plan`."""
        if offer.weight:
            encoded = await self._offload(lambda: bytes(offer.encoded))
            self._kept[plan] = _KeptOffer(encoded=encoded, tree=offer.tree)
            while len(self._kept) > OFFERS_KEPT:
                self._kept.popitem(last=False)

    def own(self, plan: Digest) -> bytes | None:
        """Return the offer that this node sent in the round of `plan`, encoded."""
        kept = self._kept.get(plan)
        return kept.encoded if kept is not None else None

    async def _serve(self, stream: ByteStream) -> None:
        with trio.move_on_after(RUN_S):
            request = decode_as(WorkRequest, await FrameReader(stream).expect_frame(REQUEST_BYTES))
            async with self._turns.slot(stream.peer):
                kept = self._kept.get(request.plan)
                for first, stop in request.runs if kept is not None else ():
                    assert kept is not None
                    with trio.fail_after(RUN_S):
                        await stream.send_all(frame(self._run(kept, first, stop)))
                await stream.send_eof()
            return
        raise PeerFault("timeout", f"the peer did not read a run of chunks within {RUN_S:g} s")

    def _run(self, kept: _KeptOffer, first: int, stop: int) -> bytes:
        size = chunk_bytes(self._codec)
        if not first < stop <= first + CHUNKS_IN_ROW:
            raise PeerFault("malformed", f"chunks {first} to {stop} are no run")
        try:
            proof = tuple(range_proof(kept.tree, first, stop))
        except ValueError as error:
            raise PeerFault("malformed", str(error)) from None
        return msgspec.msgpack.encode(
            ChunkRun(data=kept.encoded[first * size : stop * size], proof=proof)
        )

    async def fetch(
        self, peer: PeerId, plan: Digest, root: Digest, runs: Sequence[tuple[int, int]], total: int
    ) -> list[bytes] | None:
        """Fetch runs of chunks of an offer.

        Args:
            peer: the contributor.
            plan: the plan of its round.
            root: the contribution that the offer names.
            runs: (first, stop) of each run.
            total: the chunks of the contribution.

        Returns:
            The encoding of each run; None where the contributor does not serve all of them.

        Raises:
            Unreachable: no stream to the contributor opens.
            PeerFault: "bad_proof", for other bytes than those that it signed.
        """
        with trio.fail_after(RUN_S) as scope:
            try:
                stream = await self._network.open_stream(peer, PROTOCOL)
            except trio.TooSlowError:
                raise Unreachable(f"no stream within {RUN_S:g} s") from None
            try:
                request = WorkRequest(plan=plan, runs=tuple(runs))
                await stream.send_all(frame(msgspec.msgpack.encode(request)))
                reader, found = FrameReader(stream), []
                for first, _ in runs:
                    scope.deadline = trio.current_time() + RUN_S
                    if (answer := await reader.next_frame(RUN_BYTES)) is None:
                        return None
                    found.append(self._checked(answer, first, total, root))
                return found
            except (Unreachable, trio.TooSlowError):
                return None
            finally:
                await stream.aclose()

    def _checked(self, answer: bytes, first: int, total: int, root: Digest) -> bytes:
        run = decode_as(ChunkRun, answer)
        leaves = leaves_of(run.data, chunk_bytes(self._codec))
        if root_from_range(leaves, first, total, run.proof) != root:
            raise PeerFault("bad_proof", f"not chunk {first} of {total} of what was signed")
        return run.data
