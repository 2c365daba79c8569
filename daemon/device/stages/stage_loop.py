"""Obeys the node's commands to a stage, one after the other. Worker process only."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from daemon.children import memory
from daemon.children.messages import ChildMessage, CommandDone
from daemon.device.device_turn import DeviceTurn
from daemon.device.processor import Device
from daemon.device.stages.cache import GenerationCache
from daemon.device.stages.describe import describe_model
from daemon.device.stages.export_shards import export_shards
from daemon.device.stages.kernel import kernel_id
from daemon.device.stages.messages import (
    CloseCache,
    ComputeStep,
    DescribeModel,
    ExportShards,
    LoadStage,
    ModelDescribed,
    OpenCache,
    StageCommand,
    StageReady,
    StageRefused,
    StageUnable,
    StepComputed,
    vector_sizes,
)
from daemon.device.stages.stage_model import StageModel
from daemon.device.stages.weights.open_source import open_source
from protocol.errors import UserError
from protocol.ports.stage import MAX_CHUNK_TOKENS, Chunk

# Steps for the measurement of speed: the first ones wait for memory and for threads to start.
WARM_STEPS, MEASURED_STEPS = 2, 8
MAX_NAME_BYTES = 64


class _Refusal(Exception):
    """A command breaks a rule. `reason` is as in `StageRefused`."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


class StageLoop:
    """Describes one model, exports its shards, or computes one stage until the process ends."""

    def __init__(
        self,
        receive: Callable[[], StageCommand],
        send: Callable[[ChildMessage], None],
        memory_fd: int,
    ) -> None:
        """`receive` waits for the next command. `memory_fd` gets its size with the model."""
        self._receive, self._send, self._memory_fd = receive, send, memory_fd

    def run(self) -> None:
        """Obey the first command, and further ones where it loads a stage.

        A `UserError` is reported to the node, and ends the process with its exit code.
        """
        begin = self._receive()
        try:
            match begin:
                case DescribeModel():
                    self._send(ModelDescribed(manifest=describe_model(begin)))
                case ExportShards():
                    export_shards(begin)
                    self._send(CommandDone(id=0))
                case LoadStage():
                    self._serve(begin)
                case _:
                    raise TypeError(f"the first command is not {type(begin).__name__}")
        except UserError as error:
            self._send(
                StageUnable(
                    code=error.code,
                    what=error.what,
                    why=error.why,
                    fix=error.fix,
                    exit_code=error.exit_code,
                )
            )
            raise SystemExit(error.exit_code) from None

    def _serve(self, begin: LoadStage) -> None:
        os.nice(begin.settings.nice)
        device = Device(begin.settings)
        device.claim()
        # TF32, which training uses, would make the results of two GPUs differ in the fourth digit.
        torch.set_float32_matmul_precision("highest")
        source = open_source(Path(begin.source))
        model = StageModel(source, begin.layers, device.torch, begin.digests)
        made = source.architecture
        sizes = vector_sizes(made.width, made.vocabulary)
        memory.give_size(self._memory_fd, sizes)
        given, result = memory.map_vectors(self._memory_fd, sizes)
        caches = _Caches(model, begin.cache_tokens)
        self._send(
            StageReady(
                kernel=kernel_id(device.torch, device.threads),
                device=device.name(),
                layer_tokens_per_s=_measured_speed(model),
            )
        )
        turn = DeviceTurn(begin.settings.turn_file)
        while True:
            command = self._receive()
            turn.note_stage()
            match command:
                case OpenCache():
                    self._answer(command.id, partial(caches.open, command))
                case CloseCache():
                    self._answer(command.id, partial(caches.close, command.generation))
                case ComputeStep(id=number, rows=rows):
                    chunk = (
                        given[: rows * made.width].reshape(rows, made.width)
                        if rows
                        else np.array(command.tokens, np.int32)
                    )
                    try:
                        computed = model.step(caches.checked(command, chunk), chunk)
                    except _Refusal as refusal:
                        self._refuse(number, refusal)
                        continue
                    turn.note_stage()
                    result[: computed.size] = computed.reshape(-1)
                    rows, columns = computed.shape
                    self._send(StepComputed(id=number, rows=rows, columns=columns))
                case _:
                    raise TypeError(f"{type(command).__name__} comes first")

    def _answer(self, number: int, act: Callable[[], None]) -> None:
        try:
            act()
        except _Refusal as refusal:
            self._refuse(number, refusal)
        else:
            self._send(CommandDone(id=number))

    def _refuse(self, number: int, refusal: _Refusal) -> None:
        self._send(StageRefused(id=number, reason=refusal.reason, why=refusal.why))  # type: ignore[arg-type]


class _Caches:
    """The caches of the open generations. Together they hold at most `quota` tokens."""

    def __init__(self, model: StageModel, quota: int) -> None:
        self._model, self._quota = model, quota
        self._open: dict[bytes, GenerationCache] = {}

    def open(self, command: OpenCache) -> None:
        """Reserve a cache. Raises `_Refusal`."""
        name, context = command.generation, self._model.architecture.context
        if name in self._open or not 0 < len(name) <= MAX_NAME_BYTES:
            raise _Refusal("wrong", f"the name is open, or has not 1 to {MAX_NAME_BYTES} bytes")
        if not self._model.layers.contains(command.layers):
            raise _Refusal("wrong", f"layers {command.layers} are outside {self._model.layers}")
        if not 1 <= command.cache_tokens <= context:
            raise _Refusal(
                "wrong", f"a cache of {command.cache_tokens} tokens, where 1 to {context} fit"
            )
        free = self._quota - sum(cache.limit for cache in self._open.values())
        if command.cache_tokens > free:
            raise _Refusal("full", f"{command.cache_tokens} tokens are asked for, {free} are free")
        self._open[name] = self._model.new_cache(command.layers, command.cache_tokens)

    def close(self, name: bytes) -> None:
        """Free a cache."""
        self._open.pop(name, None)

    def checked(self, command: ComputeStep, chunk: Chunk) -> GenerationCache:
        """Return the cache for a chunk that fits it. Raises `_Refusal`."""
        cache = self._open.get(command.generation)
        if cache is None:
            raise _Refusal("unknown", "the stage holds no such generation")
        if command.position != cache.tokens:
            raise _Refusal("wrong", f"position {command.position} where {cache.tokens} follows")
        made, from_tokens = self._model.architecture, cache.range.first == 0
        if from_tokens != (command.rows == 0):
            raise _Refusal(
                "wrong", f"layers {cache.range} take {'tokens' if from_tokens else 'activations'}"
            )
        if not 1 <= len(chunk) <= MAX_CHUNK_TOKENS:
            raise _Refusal("wrong", f"a chunk of {len(chunk)} tokens")
        if cache.tokens + len(chunk) > cache.limit:
            raise _Refusal(
                "wrong", f"{cache.tokens} + {len(chunk)} tokens in a cache of {cache.limit}"
            )
        if from_tokens and not bool(((chunk >= 0) & (chunk < made.vocabulary)).all()):
            raise _Refusal("wrong", f"a token outside the vocabulary of {made.vocabulary}")
        return cache


def _measured_speed(model: StageModel) -> float:
    """Return tokens x layers per second, one token at a time."""
    steps = min(WARM_STEPS + MEASURED_STEPS, model.architecture.context)
    cache = model.new_cache(model.layers, steps)
    chunk: Chunk = (
        np.zeros(1, np.int32)
        if model.layers.first == 0
        else np.zeros((1, model.architecture.width), np.float32)
    )
    began = perf_counter()
    for step in range(steps):
        if step == min(WARM_STEPS, steps - 1):
            began = perf_counter()
        model.step(cache, chunk)
    measured = steps - min(WARM_STEPS, steps - 1)
    return measured * len(model.layers) / max(perf_counter() - began, 1e-9)
