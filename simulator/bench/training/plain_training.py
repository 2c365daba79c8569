"""Plain torch training with the paced task, as a user writes it: for every arm but native."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.tasks.catalog import make_options
from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane
from protocol.run.data_order import lane_positions, sample_indices
from protocol.run.initial_parameters import initial_parameters
from simulator.bench.training.paced_gpt import PacedByteGpt
from simulator.bench.training.peer_settings import TrainingPeer
from simulator.bench.training.snapshots import SnapshotWriter

NAME = "simulator.bench.training.paced_gpt:PacedByteGpt"


def make_task(values: dict[str, int | float | str | bool]) -> PacedByteGpt:
    """Make the paced task from a manifest's options."""
    options = make_options(PacedByteGpt, NAME, values)
    return PacedByteGpt(options)  # type: ignore[arg-type]


def training_size(task: PacedByteGpt) -> int:
    """The samples that a node trains on: all but those that it keeps for evaluation."""
    held_out = getattr(task, "held_out_size", lambda: 0)()
    return task.dataset_size() - int(held_out)


def initial_vector(task: PacedByteGpt, seed: int) -> Vector:
    """The parameters with which every arm begins, float32, shape (parameters,)."""
    return initial_parameters(FlatModel(task, torch.device("cpu")).specs, seed)


def load_vector(model: torch.nn.Module, vector: Vector) -> None:
    """Copy a flat vector into a model's parameters."""
    start = 0
    with torch.no_grad():
        for parameter in model.parameters():
            stop = start + parameter.numel()
            parameter.copy_(torch.from_numpy(vector[start:stop]).view(parameter.shape))
            start = stop


def vector_of(model: torch.nn.Module) -> Vector:
    """A copy of a model's parameters in flat order, float32, shape (parameters,)."""
    parts = [one.detach().reshape(-1) for one in model.parameters()]
    vector: Vector = torch.cat(parts).numpy().copy()
    return vector


class PlainTrainer:
    """A model, its task and its place in the data. One step at a time.

    Peers of one run draw disjoint lanes of one order, as the native engine's members do.
    """

    def __init__(self, settings: TrainingPeer) -> None:
        torch.set_num_threads(1)
        # As in the worker: Adam's averages of zero gradients decay into denormals.
        torch.set_flush_denormal(True)
        self.settings = settings
        self.task = make_task(settings.task_options)
        self.model = self.task.model()
        load_vector(self.model, initial_vector(self.task, settings.seed))
        self.parameters = list(self.model.parameters())
        self.steps = 0
        self._size = training_size(self.task)
        self._lane = Lane(base=0, index=settings.index, stride=settings.peers)
        self._snapshots = SnapshotWriter(
            Path(settings.folder) / f"peer-{settings.index}", settings.spacing_s
        )

    @property
    def samples(self) -> int:
        """What all peers have trained on, if each is as far as this one."""
        return self.steps * self.settings.batch_size * self.settings.peers

    def compute(self) -> None:
        """Compute one paced step's gradients into the parameters."""
        count = self.settings.batch_size
        positions = lane_positions(self._lane, self.steps * count, count)
        indices = sample_indices(self.settings.seed, self._size, positions)
        for parameter in self.parameters:
            parameter.grad = None
        loss = self.task.loss(self.model, self.task.batch(np.asarray(indices)))
        loss.backward()  # type: ignore[no-untyped-call]
        self.steps += 1

    def clip(self) -> None:
        """Clip the whole gradient, as the native engine does."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.optimizer.clip_norm)

    def snapshot(self) -> None:
        """Write the parameters if a snapshot is due."""
        if self._snapshots.due:
            self._snapshots.write(vector_of(self.model), self.samples)
