"""Serves one stage to clients: requests come in, steps are computed, answers go out.

A step that has begun is finished even when its client's connection breaks. The client comes back,
repeats the step and gets the answer, so a short break of the network costs no replay.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import trio

from daemon.services.inference.receipt_desk import ReceiptDesk
from daemon.services.inference.step_codec import StepCodec
from daemon.swarm.frames import FrameReader, frame
from daemon.system.trio_types import TaskStatus
from protocol.digest import Digest
from protocol.errors import OurFault, PeerFault, Unreachable
from protocol.identity import PeerId, Signer
from protocol.inference.messages import (
    Closed,
    CloseGeneration,
    Opened,
    OpenGeneration,
    Refused,
    StageReply,
    StageRequest,
    StepGeneration,
    Stepped,
    decode_request,
    encode,
    max_request_bytes,
)
from protocol.inference.model import ModelManifest
from protocol.inference.stage_generations import (
    LEASE_S,
    Compute,
    Held,
    Refusal,
    Repeat,
    Reserve,
    StageGenerations,
    Wait,
)
from protocol.messages.base import MAX_REASON_CHARS
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.ports.stage import Activations, CacheFull, Chunk, Stage, StageInfo, StageLost

STEPS_PROTOCOL = "/hypergpu/inference/steps/1"

UNANSWERED_REQUESTS = 64
"""The most requests of one stream that wait for an answer; more are not read. A client with 50
generations has as many steps under way."""

UNREAD_S = 120.0
"""How long a client may leave an answer unread. No client waits longer for one (`hop_calls.py`)."""

# Between two looks for leases that ended.
EXPIRE_S = 1.0
CACHE_NAME_BYTES = 16

Refuse = Callable[[str, PeerId, str], None]
"""Counts a refusal by reason, peer and detail."""


class StageServer:
    """Answers the requests of all clients of one stage."""

    def __init__(
        self,
        network: Network,
        manifest: ModelManifest,
        model: Digest,
        refuse: Refuse,
        signer: Signer,
        receipts: ReceiptDesk,
    ) -> None:
        """Register the protocol on a network that has not started."""
        self._manifest, self._model, self._refuse = manifest, model, refuse
        self._codec, self._receipts = StepCodec(manifest, signer), receipts
        self._running: Stage | None = None
        self._generations: StageGenerations | None = None
        self._nursery: trio.Nursery | None = None
        self._finished = trio.lowlevel.ParkingLot()
        self._max_bytes = max_request_bytes(manifest.width)
        self.tokens_computed = 0
        network.serve(STEPS_PROTOCOL, self._serve)

    @property
    def cache_tokens_free(self) -> int:
        """The tokens of cache that are not reserved; 0 before the stage is ready."""
        return self._generations.cache_tokens_free if self._generations is not None else 0

    @property
    def open_generations(self) -> int:
        return len(self._generations) if self._generations is not None else 0

    async def run(
        self,
        stage: Stage,
        info: StageInfo,
        *,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Compute steps and end leases, until cancelled."""
        self._generations = generations = StageGenerations(
            info.layers, info.cache_tokens, self._manifest.context, _new_cache_name
        )
        async with trio.open_nursery() as nursery:
            self._nursery, self._running = nursery, stage
            task_status.started()
            try:
                while True:
                    await trio.sleep(EXPIRE_S)
                    for cache in generations.expire(trio.current_time()):
                        await stage.close(cache)
            finally:
                self._nursery = self._generations = None

    @property
    def _stage(self) -> Stage:
        if self._running is None:
            raise OurFault("a stage was used before it was ready")
        return self._running

    async def _serve(self, stream: ByteStream) -> None:
        """Answer the requests of one stream until it ends."""
        reader, sending = FrameReader(stream), trio.Lock()
        unanswered = trio.Semaphore(UNANSWERED_REQUESTS)
        fault: PeerFault | None = None

        async def answer(request: StageRequest) -> None:
            try:
                reply = await self._answer(stream.peer, request)
                async with sending:
                    with trio.move_on_after(UNREAD_S) as sent:
                        await stream.send_all(frame(encode(reply)))
                    if sent.cancelled_caught:
                        # Nothing can follow a part of a frame.
                        nursery.cancel_scope.cancel()
            except Unreachable:
                # The reader notices the broken stream too.
                pass
            finally:
                unanswered.release()

        async with trio.open_nursery() as nursery:
            try:
                while True:
                    await unanswered.acquire()
                    data = await reader.next_frame(self._max_bytes)
                    if data is None:
                        break
                    nursery.start_soon(answer, decode_request(data))
            except Unreachable:
                nursery.cancel_scope.cancel()
            except PeerFault as error:
                fault = error
                nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault

    async def _answer(self, client: PeerId, request: StageRequest) -> StageReply:
        generations = self._generations
        if generations is None:
            return _refused(request, Refusal(reason="range", detail="the stage is not ready"))
        if isinstance(request, OpenGeneration):
            return await self._open(generations, client, request)
        if isinstance(request, StepGeneration):
            return await self._step(generations, client, request)
        return await self._close(generations, client, request)

    async def _open(
        self, generations: StageGenerations, client: PeerId, request: OpenGeneration
    ) -> StageReply:
        if request.model != self._model:
            return _refused(request, Refusal(reason="range", detail="another model is served here"))
        decision = generations.open(client, request, trio.current_time())
        if isinstance(decision, Refusal):
            return _refused(request, decision)
        if isinstance(decision, Held):
            return Opened(number=request.number, position=decision.position, lease_s=LEASE_S)
        try:
            await self._reserve(decision, request)
        except CacheFull as full:
            generations.failed(decision.cache)
            return _refused(request, Refusal(reason="full", detail=str(full)))
        except StageLost as lost:
            generations.clear()
            return _refused(request, Refusal(reason="unknown", detail=str(lost)))
        return Opened(number=request.number, position=0, lease_s=LEASE_S)

    async def _reserve(self, decision: Reserve, request: OpenGeneration) -> None:
        # Shielded: the table has changed already, and the stage must follow it although the
        # client's stream breaks. Else a cache that the table does not know would stay for good.
        with trio.CancelScope(shield=True):
            if decision.replaced:
                await self._stage.close(decision.replaced)
            await self._stage.open(decision.cache, request.layers, request.cache_tokens)

    async def _free(self, cache: bytes) -> None:
        """Close a cache that the table has forgotten. Shielded as `_reserve`."""
        with trio.CancelScope(shield=True):
            await self._stage.close(cache)

    async def _step(
        self, generations: StageGenerations, client: PeerId, request: StepGeneration
    ) -> StageReply:
        while True:
            decision = generations.step(client, request, trio.current_time())
            if isinstance(decision, Refusal):
                return _refused(request, decision)
            if isinstance(decision, Repeat):
                answer: Stepped = decision.answer
                return msgspec.structs.replace(answer, number=request.number)
            if isinstance(decision, Wait):
                await self._finished.park()
                continue
            try:
                chunks = self._codec.chunks(decision, request)
            except PeerFault as fault:
                generations.failed(decision.cache)
                await self._free(decision.cache)
                self._refuse(fault.reason, client, str(fault))
                return _refused(request, Refusal(reason="malformed", detail=str(fault)))
            if self._nursery is None:
                return _refused(request, Refusal(reason="range", detail="the stage is stopping"))
            # The job outlives this request, whose stream may break.
            self._nursery.start_soon(self._compute, generations, decision, client, request, chunks)
            await self._finished.park()

    async def _compute(
        self,
        generations: StageGenerations,
        decision: Compute,
        client: PeerId,
        request: StepGeneration,
        chunks: list[Chunk],
    ) -> None:
        """Compute a step and store its answer. Then everyone who waits for an answer looks."""
        results: list[Activations] = []
        position = request.position
        try:
            for chunk in chunks:
                results.append(await self._stage.step(decision.cache, position, chunk))
                position += len(chunk)
            tokens = position - request.position
            self.tokens_computed += tokens
            self._receipts.note_work(client, tokens * len(decision.layers))
            answer, spans = self._codec.answer(decision, request, results)
            generations.computed(decision.cache, answer, trio.current_time(), spans)
        except StageLost:
            # The process that held this cache held all of them.
            generations.failed(decision.cache)
        finally:
            self._finished.unpark_all()

    async def _close(
        self, generations: StageGenerations, client: PeerId, request: CloseGeneration
    ) -> StageReply:
        spans = generations.spans_of(client, request)
        cache = generations.close(client, request)
        if cache:
            await self._free(cache)
        if request.receipt:
            try:
                await self._receipts.accept(client, request.generation, spans, request.receipt)
            except PeerFault as fault:
                self._refuse(fault.reason, client, str(fault))
        return Closed(number=request.number)


def _refused(request: StageRequest, refusal: Refusal) -> Refused:
    return Refused(
        number=request.number,
        reason=refusal.reason,
        detail=refusal.detail[:MAX_REASON_CHARS],
        expected=refusal.expected,
    )


def _new_cache_name() -> bytes:
    return os.urandom(CACHE_NAME_BYTES)
