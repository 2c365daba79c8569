"""A byte GPT that several members of one process train by turns, each on its own lane of data."""

from __future__ import annotations

import numpy as np
import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.tasks.byte_gpt import ByteGpt, ByteGptOptions
from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane
from protocol.run.data_order import lane_positions, sample_indices
from protocol.run.initial_parameters import initial_parameters
from simulator.bench.training.plain_training import load_vector, vector_of

SEED = 16
BATCH = 8
# Windows at the end of the corpus that nobody trains on.
HELD_OUT = 256
CORPUS_BYTES = 1 << 20


class Members:
    """The members' trainers: one model in memory, an optimizer state for each of them."""

    def __init__(self, count: int, steps: int) -> None:
        """Each of `count` members takes `steps` steps in a round."""
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        torch.manual_seed(SEED)
        self.task = ByteGpt(
            ByteGptOptions(layers=2, heads=2, width=64, context=32, corpus_bytes=CORPUS_BYTES)
        )
        self._model = self.task.model()
        self._steps, self._count = steps, count
        self._optimizers = [
            torch.optim.AdamW(self._model.parameters(), lr=2e-3, betas=(0.9, 0.99))
            for _ in range(count)
        ]
        self._size = self.task.dataset_size() - HELD_OUT
        self._held_out = self.task.batch(np.arange(self._size, self._size + HELD_OUT))

    @property
    def samples(self) -> int:
        """The samples of one member in one round."""
        return self._steps * BATCH

    def first_anchor(self) -> Vector:
        return initial_parameters(FlatModel(self.task, torch.device("cpu")).specs, SEED)

    def work(self, member: int, anchor: Vector, number: int) -> Vector:
        """Train from the anchor for a round; return the pseudo-gradient, anchor minus local."""
        load_vector(self._model, anchor)
        lane = Lane(base=0, index=member, stride=self._count)
        for step in range(self._steps):
            first = (number * self._steps + step) * BATCH
            indices = sample_indices(SEED, self._size, lane_positions(lane, first, BATCH))
            self._model.zero_grad(set_to_none=True)
            loss = self.task.loss(self._model, self.task.batch(np.asarray(indices)))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizers[member].step()
        return anchor - vector_of(self._model)

    def loss(self, anchor: Vector) -> float:
        """The loss on samples that nobody trained on."""
        load_vector(self._model, anchor)
        with torch.no_grad():
            return float(self.task.loss(self._model, self._held_out))
