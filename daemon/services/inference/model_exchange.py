"""Gives the model manifest and the tokenizer's file to nodes that do not have the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import trio

from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.digest import digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.inference.model import MAX_MODEL_MANIFEST_BYTES, ModelManifest, SignedModel
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

MODEL_PROTOCOL = "/hypergpu/inference/model/1"
REQUEST_BYTES = 64
ANSWER_S = 20.0
MAX_TOKENIZER_BYTES = 64 << 20
"""The largest published tokenizers have 35 MB."""

TOKENIZER_S = 120.0
SERVED_AT_ONCE, SERVED_TO_PEER = 8, 1


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Asks for the manifest, or for the tokenizer's file."""

    what: Literal["manifest", "tokenizer"]


def serve_model(
    network: Network, signed: Callable[[], SignedModel | None], tokenizer: bytes
) -> None:
    """Give a model's manifest and tokenizer to anyone who asks.

    `signed` returns None while the stage is not ready; those who ask get no answer then.
    """
    limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def handle(stream: ByteStream) -> None:
        with trio.move_on_after(TOKENIZER_S):
            async with limiter.slot(stream.peer):
                data = await FrameReader(stream).expect_frame(REQUEST_BYTES)
                request = decode_as(ModelRequest, data)
                model = signed()
                if model is None:
                    return
                reply = msgspec.msgpack.encode(model) if request.what == "manifest" else tokenizer
                await stream.send_all(frame(reply))
                await stream.send_eof()

    network.serve(MODEL_PROTOCOL, handle)


async def fetch_model(network: Network, peer: PeerId) -> SignedModel:
    """Return the model that a peer serves, checked.

    Raises:
        Unreachable: the peer does not answer, or serves no model.
        PeerFault: its answer is no signed model manifest.
    """
    data = await _fetch(network, peer, "manifest", MAX_MODEL_MANIFEST_BYTES + 1024, ANSWER_S)
    signed = decode_as(SignedModel, data)
    signed.open()
    return signed


async def fetch_tokenizer(network: Network, peer: PeerId, manifest: ModelManifest) -> bytes:
    """Return the tokenizer's file, whose digest fits the manifest; b"" where tokens are bytes.

    Raises:
        Unreachable: the peer does not answer.
        PeerFault: it gave another file.
    """
    if manifest.tokenizer == "bytes":
        return b""
    data = await _fetch(network, peer, "tokenizer", MAX_TOKENIZER_BYTES, TOKENIZER_S)
    if digest(data) != manifest.tokenizer_digest:
        raise PeerFault("malformed", "the tokenizer's file has another digest")
    return data


async def _fetch(
    network: Network,
    peer: PeerId,
    what: Literal["manifest", "tokenizer"],
    limit: int,
    timeout_s: float,
) -> bytes:
    with trio.move_on_after(timeout_s):
        stream = await network.open_stream(peer, MODEL_PROTOCOL)
        try:
            await stream.send_all(frame(msgspec.msgpack.encode(ModelRequest(what=what))))
            return await FrameReader(stream).expect_frame(limit)
        finally:
            await stream.aclose()
    raise Unreachable(f"no {what} of a model within {timeout_s:g} s")
