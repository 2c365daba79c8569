"""The model manifest: what a model is, by content, so that every holder names it alike.

The name of a model is the digest of its manifest without the words for people: two nodes that read
the same files find each other, whatever they call their folders. The publisher's signature travels
beside the manifest.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify
from protocol.inference.layers import MAX_LAYERS

MAX_MODEL_MANIFEST_BYTES = 1 << 20
"""A model of 100 layers has about 1,000 tensors in at most 300 files, whose entries take 60 KB."""

SHARD_CHUNK_BYTES = 1 << 18
"""A chunk of a shard: 0.02 s at 100 Mbit/s. A shard's digest is the root of a tree over them."""

MAX_SHARDS = 4096
MAX_CONFIG_CHARS = 64 << 10
MAX_KERNEL_CHARS = 256

# In place of the name for people, in the bytes that name the model.
_NAMELESS = "-"
_DOMAIN = b"hypergpu/model/1\0"
_SIGNED_DOMAIN = b"hypergpu/published-model/1\0"

ShortText = Annotated[str, Meta(min_length=1, max_length=256)]
KernelId = Annotated[str, Meta(min_length=1, max_length=MAX_KERNEL_CHARS)]
"""Names everything that the bits of a result depend on, beside the weights and the inputs.

It has the versions of the libraries, the processor's capability or the GPU with its driver, the
threads, and the attention's implementation. Stages with equal ids compute equal bits from equal
chunks.
"""


class Shard(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A part of the weights, by its own digest.

    `layers` are the layers that need this part; empty for a part that the embedding or the output
    needs. What a shard is (a file, or the tensors of one layer), the loader decides.
    """

    name: ShortText
    size_bytes: Annotated[int, Meta(ge=0, le=1 << 50)]
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    layers: Annotated[tuple[int, ...], Meta(max_length=MAX_LAYERS)] = ()


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that can be served in stages."""

    kind: Literal["inference"] = "inference"
    # For people. Two models may share it, and one model may have two.
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    # The adapter that computes it: "byte_gpt", "llama", "bloom".
    architecture: Annotated[str, Meta(min_length=1, max_length=32)]
    layers: Annotated[int, Meta(ge=1, le=MAX_LAYERS)]
    width: Annotated[int, Meta(ge=1, le=1 << 17)]
    vocabulary: Annotated[int, Meta(ge=2, le=1 << 22)]
    # The most positions of one generation.
    context: Annotated[int, Meta(ge=1, le=1 << 24)]
    # The type that stages compute in.
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    # The architecture's further settings, as JSON with sorted keys.
    config: Annotated[str, Meta(max_length=MAX_CONFIG_CHARS)] = "{}"
    # "bytes" where tokens are bytes; else the tokenizer's file, which `tokenizer_digest` names.
    tokenizer: ShortText = "bytes"
    tokenizer_digest: Annotated[bytes, Meta(max_length=32)] = b""
    # The token that a text without a prompt begins with, and the tokens that end a text.
    first_token: Annotated[int, Meta(ge=0)] = 0
    end_tokens: Annotated[tuple[int, ...], Meta(max_length=64)] = ()
    # A template of Jinja that makes a prompt of a chat; empty where the model has none.
    chat_template: Annotated[str, Meta(max_length=MAX_CONFIG_CHARS)] = ""
    shards: Annotated[tuple[Shard, ...], Meta(max_length=MAX_SHARDS)] = ()

    def __post_init__(self) -> None:
        if not self.name.isprintable() or not self.architecture.isprintable():
            raise ValueError("the model's name has unprintable characters")
        if self.tokenizer != "bytes" and len(self.tokenizer_digest) != 32:
            raise ValueError("the tokenizer's file has no digest")


class SignedModel(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A model manifest as it travels: canonical bytes, the publisher and its kernel, signed.

    The signature says who published the model. The model's name does not depend on it.
    """

    body: Annotated[bytes, Meta(max_length=MAX_MODEL_MANIFEST_BYTES)]
    publisher: Annotated[PeerId, Meta(max_length=60)]
    kernel: KernelId
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]

    def open(self) -> ModelManifest:
        """Decode and check the manifest.

        Raises:
            PeerFault: "malformed" for bytes that are no manifest, "unsigned" for a signature that
                does not fit.
        """
        if not verify(self.publisher, self.signature, _signed_bytes(self.body, self.kernel)):
            raise PeerFault("unsigned", "the publisher's signature does not fit the model manifest")
        try:
            return msgspec.msgpack.decode(self.body, type=ModelManifest)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise PeerFault("malformed", f"not a model manifest: {error}") from None


def encode_model(manifest: ModelManifest) -> bytes:
    """Return the canonical bytes of a manifest."""
    return msgspec.msgpack.encode(manifest)


def model_name(manifest: ModelManifest) -> Digest:
    """Return the name of a model, under which its stages are found."""
    return digest(_DOMAIN, encode_model(msgspec.structs.replace(manifest, name=_NAMELESS)))


def publish_model(manifest: ModelManifest, kernel: str, signer: Signer) -> SignedModel:
    """Sign a manifest as its publisher, with the kernel id of the publisher's own stage."""
    body = encode_model(manifest)
    signature = signer.sign(_signed_bytes(body, kernel))
    return SignedModel(body=body, publisher=signer.peer, kernel=kernel, signature=signature)


def _signed_bytes(body: bytes, kernel: str) -> bytes:
    return _SIGNED_DOMAIN + digest(_DOMAIN, body) + kernel.encode()
