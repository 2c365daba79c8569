"""Describes a loaded task for the other members of the run. Worker process only.

See `protocol/run/task_digest.py`.
"""

from __future__ import annotations

import random

import msgspec
import numpy as np
import torch

from daemon.device.model.author_code import AuthorFault, SampleFault, author_code
from daemon.device.model.flat_model import FlatModel
from daemon.device.tasks.catalog import RUNS_CODE, SHIPPED
from daemon.device.tasks.held_out import DataSplit
from daemon.device.tasks.source import sources_of
from daemon.device.tasks.task import GIVEN, Task
from protocol.digest import digest
from protocol.ports.trainer import ParameterSpec
from protocol.run.task_digest import (
    MAX_LABEL_CHARS,
    SourcePart,
    TaskDigest,
    TensorContent,
    TensorPart,
    bounded,
)

# Samples spread over the data set. A label file that is off by one shows in each of them.
SAMPLES_COMPARED = 16
# Values spread over a tensor, beside its mean and its root mean square.
SKETCHED_VALUES = 8
MAX_OPTIONS_CHARS = 4096
_DOMAIN = b"hypergpu/content/1\0"


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and `random`, so that a new task draws the same numbers on every node."""
    torch.manual_seed(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)


def describe_task(task: Task, net: FlatModel, name: str, split: DataSplit, seed: int) -> TaskDigest:
    """Describe the task as this machine has it. Draws a few samples of its data, twice."""
    dataset_size = split.total
    source: tuple[SourcePart, ...] = ()
    if name in SHIPPED:
        source = (SourcePart(name=f"task {name}", digest=str(task.version).encode()[:32]),)
    if name not in SHIPPED or name in RUNS_CODE:
        parts = {part.name: part for at in task.source_modules() for part in sources_of(at)}
        source += tuple(parts[part] for part in sorted(parts))
    if split.held_out and not is_private(task):
        sizes = f"{split.trained}/{split.held_out}".encode()[:32]
        source = (*source, SourcePart(name="the held-out samples", digest=sizes))
    return TaskDigest(
        parameters=bounded(
            [
                _tensor(at, tensor.detach(), _given_content(tensor, spec))
                for (at, tensor), spec in zip(net.vector, net.specs, strict=True)
            ]
        ),
        frozen=bounded(
            [_tensor(at, parameter.detach(), content_of(parameter)) for at, parameter in net.frozen]
        ),
        buffers=bounded([_tensor(at, buffer, content_of(buffer)) for at, buffer in net.buffers]),
        options=_options(task),
        private=is_private(task),
        dataset_size=dataset_size,
        sample=_version(task) if is_private(task) else _sample(task, dataset_size, seed),
        source=source,
    )


def _version(task: Task) -> tuple[TensorContent, ...]:
    """Return what names the version of data that differs between machines; none for own data.

    Nobody compares it. Nodes whose descriptions have one name have the same data, and may audit
    each other's work.
    """
    version = getattr(task, "data_version", b"")
    return (TensorContent(digest=digest(_DOMAIN, version)),) if version else ()


def is_private(task: Task) -> bool:
    """Return whether each node has data of its own.

    A task may keep its data in `self.data`, which then says nothing about that.
    """
    said = getattr(task, "data", None)
    return isinstance(said, str) and said == "private"


def _tensor(name: str, tensor: torch.Tensor, content: TensorContent | None) -> TensorPart:
    label = (
        name
        if len(name) <= MAX_LABEL_CHARS
        else f"{name[: MAX_LABEL_CHARS - 20]}...{digest(name.encode()).hex()[:16]}"
    )
    return TensorPart(
        name=label,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        content=content,
    )


def content_of(tensor: torch.Tensor) -> TensorContent:
    """Return the digest of a tensor's bytes, and a sketch of SKETCHED_VALUES + 2 numbers.

    Only tensors of floating-point numbers have a sketch.
    """
    plain = tensor.detach().to("cpu").contiguous()
    if plain.is_quantized or plain.is_sparse or plain.is_complex():
        plain = (
            torch.view_as_real(plain.resolve_conj()).contiguous()
            if plain.is_complex()
            else plain.to_dense()
        )
    raw = plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
    name = digest(_DOMAIN, str((tuple(tensor.shape), str(tensor.dtype))).encode(), raw)
    if not plain.is_floating_point() or not plain.numel():
        return TensorContent(digest=name)
    flat = plain.reshape(-1)
    places = torch.linspace(0, flat.numel() - 1, SKETCHED_VALUES, dtype=torch.float64).long()
    values = flat[places].double().tolist()
    mean, square = flat.double().mean().item(), flat.double().square().mean().sqrt().item()
    return TensorContent(digest=name, sketch=(mean, square, *values))


def _given_content(parameter: torch.Tensor, spec: ParameterSpec) -> TensorContent | None:
    """Return the digest of values that `model()` gives a trained parameter, else None.

    It has no sketch: members that begin with other bits would never certify a round.
    """
    if spec.init != GIVEN.kind:
        return None
    return TensorContent(digest=content_of(parameter).digest)


def _options(task: Task) -> str:
    """Return all options with their values; versions of a module may differ in their defaults."""
    try:
        values = msgspec.to_builtins(task.options)
        text = (
            ", ".join(f"{key} = {values[key]!r}" for key in sorted(values))
            if isinstance(values, dict)
            else repr(values)
        )
    except TypeError:
        # The task has replaced its options by another object, which its source describes.
        text = ""
    return (
        text
        if len(text) <= MAX_OPTIONS_CHARS
        else f"{text[: MAX_OPTIONS_CHARS - 20]}...{digest(text.encode()).hex()[:16]}"
    )


def _sample(task: Task, dataset_size: int, seed: int) -> tuple[TensorContent, ...]:
    """Return the contents of a few samples' tensors.

    Returns none where they cannot be read, or differ between calls, as random crops do.
    """
    places = np.unique(
        np.linspace(0, dataset_size - 1, min(SAMPLES_COMPARED, dataset_size)).astype(np.int64)
    )
    places = np.clip(places, 0, dataset_size - 1)
    drawn: list[tuple[TensorContent, ...]] = []
    for _ in range(2):
        seed_everything(seed)
        try:
            with author_code("batch()", SampleFault):
                batch = task.batch(places.copy())
                tensors = [part for part in batch if isinstance(part, torch.Tensor)]
                drawn.append(tuple(content_of(tensor) for tensor in tensors[:64]))
        except AuthorFault:
            # Training skips, counts and reports a batch that fails.
            return ()
    return drawn[0] if drawn[0] == drawn[1] else ()
