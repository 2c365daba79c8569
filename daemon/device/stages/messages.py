"""Defines the messages between a node and the process of a stage: small records, never a tensor.

The node sends one command at a time, and the process answers each once. The first command is
`DescribeModel` or `ExportShards`, after whose answer the process ends, or `LoadStage`. Hidden
states and logits travel in two shared float32 vectors (`vector_sizes`): the node writes the first
one before `ComputeStep`, and the process writes the second one before `StepComputed`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from daemon.children.messages import ChildMessage, CommandDone
from daemon.device.settings import WorkerSettings
from protocol.digest import Digest
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import MAX_CHUNK_TOKENS


class DescribeModel(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Read a whole model, write its tokenizer's file, and describe the model.

    `tokenizer_file` is where to write. It stays absent where tokens are bytes.
    """

    source: str
    name: str
    tokenizer_file: str


class ExportShards(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Write shards of a model into a folder, under their digests."""

    source: str
    names: tuple[str, ...]
    folder: str


class LoadStage(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Load some layers of a model. `digests` has the digest of each shard by name."""

    source: str
    layers: LayerRange
    cache_tokens: int
    digests: dict[str, Digest]
    settings: WorkerSettings


class OpenCache(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Reserve a cache for a generation."""

    id: int
    generation: bytes
    layers: LayerRange
    cache_tokens: int


class ComputeStep(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Compute a chunk: `tokens`, or `rows` rows of the shared vector where there are no tokens."""

    id: int
    generation: bytes
    position: int
    tokens: tuple[int, ...] = ()
    rows: int = 0


class CloseCache(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Free the cache of a generation."""

    id: int
    generation: bytes


class ModelDescribed(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The answer to `DescribeModel`."""

    manifest: ModelManifest


class StageReady(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The weights are loaded and checked, and the shared memory has its size."""

    kernel: str
    device: str
    layer_tokens_per_s: float


class StageUnable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The fields of a `UserError` that ends the process."""

    code: str
    what: str
    why: str
    fix: str
    exit_code: int


class StepComputed(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The result is in the shared vector: `rows` rows of `columns` elements."""

    id: int
    rows: int
    columns: int


class StageRefused(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The command breaks a rule and has changed nothing. `reason` chooses the port's exception."""

    id: int
    reason: Literal["full", "unknown", "wrong"]
    why: str


StageCommand = DescribeModel | ExportShards | LoadStage | OpenCache | ComputeStep | CloseCache
StageReport = ModelDescribed | StageReady | StageUnable | StepComputed | StageRefused | CommandDone

_commands: msgspec.msgpack.Decoder[StageCommand] = msgspec.msgpack.Decoder(StageCommand)
_reports: msgspec.msgpack.Decoder[StageReport] = msgspec.msgpack.Decoder(StageReport)


def decode_command(body: bytes) -> StageCommand:
    """Decode a command of the node. Raises `msgspec.DecodeError`."""
    return _commands.decode(body)


def decode_report(body: bytes) -> StageReport:
    """Decode a report of the process. Raises `msgspec.DecodeError`."""
    return _reports.decode(body)


def vector_sizes(width: int, vocabulary: int) -> tuple[int, int]:
    """Return the lengths of the two shared vectors, in float32 elements."""
    rows = MAX_CHUNK_TOKENS * width
    return rows, max(rows, vocabulary)
