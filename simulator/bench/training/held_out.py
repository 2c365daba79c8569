"""Scores a run's snapshots on the held-out windows, after the run, with one code for all arms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from protocol.averaging.vector_layout import Vector
from simulator.bench.training.peer_settings import Arm
from simulator.bench.training.plain_training import (
    NAME,
    initial_vector,
    load_vector,
    make_task,
)
from simulator.bench.training.run_record import LossPoint
from simulator.bench.training.snapshots import load, read_snapshots

__all__ = ["NAME", "HeldOutScorer"]

# Windows in one forward pass.
BATCH = 64


class HeldOutScorer:
    """The held-out windows of one task, and a model to put parameters into."""

    def __init__(self, options: dict[str, int | float | str | bool]) -> None:
        # Scoring writes no step log.
        self._task = make_task({**options, "records": ""})
        self._model = self._task.model()
        self._batches = [
            self._task.batch(np.asarray(part, np.int64))
            for part in _parts(self._task.held_out_windows(), BATCH)
        ]
        self.parameters = sum(one.numel() for one in self._model.parameters())

    def initial(self, seed: int) -> float:
        """The loss of the parameters with which every arm begins."""
        return self.loss(initial_vector(self._task, seed))

    @torch.no_grad()
    def loss(self, vector: Vector) -> float:
        """The mean loss over the held-out windows."""
        load_vector(self._model, vector)
        total = count = 0.0
        for batch in self._batches:
            rows = len(batch[0])
            total += rows * float(self._task.loss(self._model, batch))
            count += rows
        return total / count

    def points(self, arm: Arm, folder: Path, began_s: float, seed: int) -> list[LossPoint]:
        """Score the snapshots of one run. Times count from `began_s`.

        After local updates each peer has parameters of its own. What counts there is their mean,
        which averaging would give at that moment: the most favourable reading.
        """
        peers = sorted(folder.glob("peer-*")) if arm == "hivemind-b" else [folder / "peer-0"]
        lists = [read_snapshots(peer) for peer in peers]
        found = [LossPoint(at_s=0.0, samples=0, loss=self.initial(seed))]
        for group in zip(*lists, strict=False):
            vectors = [load(peer, one) for peer, one in zip(peers, group, strict=True)]
            mean: Vector = np.mean(vectors, axis=0, dtype=np.float32)
            found.append(
                LossPoint(
                    at_s=max(one.at_s for one in group) - began_s,
                    samples=group[0].samples,
                    loss=self.loss(mean),
                )
            )
        return found


def _parts(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
