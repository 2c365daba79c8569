"""What a task is, in a few named parts, so that members can tell whether they train the same task.

Every member describes the task as its own machine has it. Two descriptions are compared part by
part, and the first difference is a sentence for people. A description is named by its digest, which
travels in beacons and offers. The description itself is requested only if the names differ.

Names may differ for equal tasks: the last bits of a sine or a normal draw depend on the processor.
Such contents carry a sketch beside their digest, and contents whose sketches agree count as equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import Digest, digest
from protocol.errors import PeerFault

MAX_TASK_BYTES = 1 << 20
"""The most that is read from a peer: 4,096 tensors of about 100 bytes, and a reserve."""

MAX_TENSORS = 4096
"""Tensors that are described one by one. The rest are described by one digest."""

MAX_LABEL_CHARS = 256
"""Characters of a tensor's or file's name. PyTorch's longest published names have about 100."""

SKETCH_TOLERANCE = 1e-5
"""The tolerance of sketches, as a share of their largest value.

Math libraries differ by 1e-7, different contents by about 1.
"""

_DOMAIN = b"hypergpu/task/1\0"

Label = Annotated[str, Meta(max_length=MAX_LABEL_CHARS)]
Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[bytes, Meta(max_length=32)]
"""A digest, or empty if there is nothing to name."""


class TaskPart(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """Base of the parts of a description."""


class TensorContent(
    TaskPart, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The values of a tensor.

    `sketch` is empty for values that every machine computes alike (integers, text).
    """

    digest: Name = b""
    sketch: Annotated[tuple[float, ...], Meta(max_length=32)] = ()


class TensorPart(TaskPart, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A parameter or buffer.

    `content` is None for a trained parameter: its values come from the run.
    """

    name: Label
    shape: Annotated[tuple[int, ...], Meta(max_length=64)]
    dtype: Label
    content: TensorContent | None = None


class SourcePart(TaskPart, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A module of the task's author, or a shipped task with its version."""

    name: Label
    digest: Name


class TaskDigest(TaskPart, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A task as one machine has it.

    If `private`, every node has data of its own, and data are not compared.
    """

    parameters: Annotated[tuple[TensorPart, ...], Meta(max_length=MAX_TENSORS + 1)] = ()
    frozen: Annotated[tuple[TensorPart, ...], Meta(max_length=MAX_TENSORS + 1)] = ()
    buffers: Annotated[tuple[TensorPart, ...], Meta(max_length=MAX_TENSORS + 1)] = ()
    options: Text = ""
    private: bool = False
    dataset_size: Annotated[int, Meta(ge=0)] = 0
    sample: Annotated[tuple[TensorContent, ...], Meta(max_length=64)] = ()
    source: Annotated[tuple[SourcePart, ...], Meta(max_length=1024)] = ()

    @property
    def name(self) -> Digest:
        """The 32 bytes that name the task in beacons and offers."""
        return digest(_DOMAIN, encode_task(self))


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[TaskDigest] = msgspec.msgpack.Decoder(TaskDigest)


def encode_task(task: TaskDigest) -> bytes:
    return _encoder.encode(task)


def decode_task(data: bytes) -> TaskDigest:
    """Decode a description. Raises `PeerFault("malformed")`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerFault("malformed", f"bytes that do not describe a task: {error}") from None


def bounded(parts: Sequence[TensorPart]) -> tuple[TensorPart, ...]:
    """Return the parts, at most `MAX_TENSORS` + 1.

    The last part stands for all others: its content is their digest.
    """
    if len(parts) <= MAX_TENSORS:
        return tuple(parts)
    rest = parts[MAX_TENSORS:]
    name = f"the other {len(rest)}"
    every = digest(_DOMAIN, _encoder.encode(list(rest)))
    return (
        *parts[:MAX_TENSORS],
        TensorPart(name=name, shape=(), dtype="", content=TensorContent(digest=every)),
    )


def difference(ours: TaskDigest, theirs: TaskDigest) -> str:
    """Return the first difference, as a sentence without its full stop.

    The sentence is empty for equal tasks.
    """
    return (
        _tensors("parameter", ours.parameters, theirs.parameters)
        or _tensors("frozen parameter", ours.frozen, theirs.frozen)
        or _tensors("buffer", ours.buffers, theirs.buffers)
        or _options(ours, theirs)
        or _data(ours, theirs)
        or _source(ours, theirs)
    )


def changed_parameters(before: TaskDigest, now: TaskDigest) -> str:
    """Return how the trained parameters differ from those of an older model of the task.

    The result is empty if the model still fits.
    """
    words = _tensors("parameter", now.parameters, before.parameters)
    for old, new in (
        ("the other node's task", "the model"),
        ("the other node's", "the model's"),
        (", ours", ", the task"),
        ("our task", "the task"),
    ):
        words = words.replace(old, new)
    return words


def _tensors(kind: str, ours: Sequence[TensorPart], theirs: Sequence[TensorPart]) -> str:
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False), start=1):
        if mine.name != other.name:
            return f"the other node's task has {kind} {number} `{other.name}`, ours `{mine.name}`"
        where = f"{kind} {number} `{mine.name}`"
        if mine.shape != other.shape:
            return f"the other node's task has {where} of shape {other.shape}, ours {mine.shape}"
        if mine.dtype != other.dtype:
            return f"the other node's task has {where} of type {other.dtype}, ours {mine.dtype}"
        if not _same(mine.content, other.content):
            return f"the other node's task has other values in {where}"
    if len(ours) != len(theirs):
        longer, whose = (theirs, "the other node's") if len(theirs) > len(ours) else (ours, "our")
        more = longer[min(len(ours), len(theirs))]
        return (
            f"the other node's task has {_counted(len(theirs), kind)}, ours {len(ours)}: "
            f"`{more.name}` of shape {more.shape} is in {whose} task alone"
        )
    return ""


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind}{'' if count == 1 else 's'}"


def _same(mine: TensorContent | None, other: TensorContent | None) -> bool:
    if mine is None or other is None:
        return mine is other
    if mine.digest == other.digest:
        return True
    if not mine.sketch or len(mine.sketch) != len(other.sketch):
        return False
    if not all(map(math.isfinite, (*mine.sketch, *other.sketch))):
        return False
    scale = max(abs(value) for value in (*mine.sketch, *other.sketch))
    return all(
        abs(a - b) <= SKETCH_TOLERANCE * scale
        for a, b in zip(mine.sketch, other.sketch, strict=True)
    )


def _options(ours: TaskDigest, theirs: TaskDigest) -> str:
    if ours.options == theirs.options:
        return ""
    return (
        f"the other node's task has the options {theirs.options or 'none'}, ours "
        f"{ours.options or 'none'}"
    )


def _data(ours: TaskDigest, theirs: TaskDigest) -> str:
    if ours.private != theirs.private:
        whose = "the other node's" if theirs.private else "our"
        return f'only {whose} task says data = "private"'
    if ours.private:
        return ""
    if ours.dataset_size != theirs.dataset_size:
        return (
            f"the other node's data set has {theirs.dataset_size:,} samples, ours "
            f"{ours.dataset_size:,}"
        )
    if not ours.sample or not theirs.sample:
        # One sample is drawn at random or could not be read, so there is nothing to compare.
        return ""
    if len(ours.sample) != len(theirs.sample):
        return (
            f"the other node's batch has {_counted(len(theirs.sample), 'tensor')}, ours "
            f"{len(ours.sample)}"
        )
    for number, (mine, other) in enumerate(zip(ours.sample, theirs.sample, strict=True), start=1):
        if not _same(mine, other):
            return (
                f"the other node's data set has other content: tensor {number} of the same "
                "samples differs (inputs or labels)"
            )
    return ""


def _source(ours: TaskDigest, theirs: TaskDigest) -> str:
    mine = {part.name: part.digest for part in ours.source}
    others = {part.name: part.digest for part in theirs.source}
    for name, content in mine.items():
        if name in others and others[name] != content:
            return f"the other node has another version of {name}"
    for name in mine.keys() ^ others.keys():
        whose = "the other node's" if name in others else "our"
        return f"only {whose} task uses {name}"
    return ""
