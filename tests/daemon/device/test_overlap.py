"""Tests of hand-overs and shifts while a step is computed, in two threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from daemon.device.loops.training import TrainingLoop
from daemon.device.shared_memory import SharedMemory
from hypergpu import Batch
from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane
from protocol.run.manifest import Inner
from tests.daemon.device.faulty_tasks import Line, LineOptions
from tests.daemon.device.loops import LANE, loop_of

OTHER = Lane(base=40, index=0, stride=1)
# Adam moves each parameter by the rate at the first step.
RATE = 0.125
WAIT_S = 20.0


class Gated(Line):
    """A task whose loss waits at a gate, with the parameters that it has read."""

    def __init__(self) -> None:
        super().__init__(LineOptions())
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.drawn: list[int] = []

    def batch(self, indices: np.ndarray) -> Batch:
        self.drawn += indices.tolist()
        return super().batch(indices)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        loss = super().loss(model, batch)
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        return loss


class Overlap:
    """A loop, its shared memory, and a step that is held in the midst of its computation."""

    def __init__(self) -> None:
        self.task = Gated()
        self.loop: TrainingLoop
        self.shared: SharedMemory
        self.loop, self.shared = loop_of(self.task, inner=Inner(batch_size=4, learning_rate=RATE))
        self.shared.anchor[:] = (1.0, 2.0)
        self.loop.train(LANE, None)

    @property
    def flat(self) -> Vector:
        return self.loop._net.flat.numpy().copy()

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Run a block while a step is computed; the step ends after it."""
        self.task.entered.clear()
        self.task.gate.clear()
        errors: list[BaseException] = []

        def step() -> None:
            try:
                self.loop.step()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=step)
        thread.start()
        try:
            assert self.task.entered.wait(WAIT_S)
            yield
        finally:
            self.task.gate.set()
            thread.join(WAIT_S)
        assert not errors, errors

    def hand_over(self, *, received: bool = False, lane: Lane = LANE) -> tuple[int, Vector]:
        """Hand over; return the steps and a copy of the delta."""
        work, _ = self.loop.hand_over(lane, position=None, received=received)
        return work.steps, self.shared.delta.copy()

    def shift(self, *local: float, received: bool) -> None:
        self.shared.anchor[:] = local
        self.loop.shift(OTHER, None, position=0, received=received)


def test_a_hand_over_has_the_finished_steps_and_not_the_one_in_progress() -> None:
    overlap = Overlap()
    start = overlap.flat
    overlap.loop.step()
    border = overlap.flat
    with overlap.in_step():
        steps, delta = overlap.hand_over(lane=OTHER)
        assert overlap.loop.step_s() > 0.0
    assert steps == 1
    assert np.array_equal(delta, start - border)
    steps, delta = overlap.hand_over(received=True)
    assert steps == 1
    assert np.array_equal(delta, border - overlap.flat)
    assert overlap.loop.step_s() == 0.0


def test_a_step_in_progress_keeps_its_samples_of_the_old_lane() -> None:
    overlap = Overlap()
    overlap.loop.step()
    with overlap.in_step():
        work, drawn = overlap.loop.hand_over(OTHER, position=None, received=False)
        assert (work.samples, drawn) == (4, 8)
    overlap.loop.step()
    straight = Overlap()
    for _ in range(2):
        straight.loop.step()
    straight.loop.resume(OTHER, None)
    straight.loop.step()
    assert overlap.task.drawn == straight.task.drawn


def test_a_hand_over_that_the_node_did_not_receive_is_part_of_the_next() -> None:
    overlap = Overlap()
    start = overlap.flat
    overlap.loop.step()
    with overlap.in_step():
        assert overlap.hand_over()[0] == 1
    steps, delta = overlap.hand_over(received=False)
    assert steps == 2
    assert np.array_equal(delta, start - overlap.flat)
    assert overlap.loop.pause().steps == 2


def test_a_shift_moves_the_parameters_at_the_end_of_the_step() -> None:
    overlap = Overlap()
    overlap.loop.step()
    assert overlap.hand_over()[0] == 1
    start = overlap.flat
    with overlap.in_step():
        overlap.shift(5.0, -3.0, received=True)
        assert np.array_equal(overlap.flat, start), "not in the midst of the step"
        # Nothing was finished since the hand-over, at the old place or at the new one.
        steps, delta = overlap.hand_over()
        assert steps == 0
        assert not delta.any()
    ended = overlap.flat
    assert np.abs(ended - np.float32([5.0, -3.0])).max() <= 2 * RATE
    steps, delta = overlap.hand_over(received=True)
    assert steps == 1
    assert np.array_equal(delta, np.float32([5.0, -3.0]) - ended)


def test_a_shift_keeps_steps_that_were_not_handed_over() -> None:
    overlap = Overlap()
    start = overlap.flat
    for _ in range(3):
        overlap.loop.step()
    moved = start - overlap.flat
    with overlap.in_step():
        overlap.shift(5.0, -3.0, received=False)
        overlap.shift(7.0, 1.0, received=False)
        steps, delta = overlap.hand_over()
        assert steps == 3
        assert np.allclose(delta, moved, rtol=1e-5)
        handed = np.float32([7.0, 1.0]) - delta
    steps, delta = overlap.hand_over(received=True)
    assert steps == 1
    assert np.allclose(delta, handed - overlap.flat, atol=1e-6)


def test_work_that_is_not_finite_is_dropped_and_the_parameters_return() -> None:
    overlap = Overlap()
    start = overlap.flat
    overlap.loop.step()
    with overlap.in_step():
        overlap.loop._net.flat[0] = float("inf")
        work, _ = overlap.loop.hand_over(LANE, position=None, received=False)
        assert (work.steps, work.dropped) == (0, 4)
        assert not overlap.shared.delta.any()
        assert not overlap.loop.save_inner()
    assert not overlap.loop.training
    assert np.array_equal(overlap.flat, start)
    assert overlap.loop.save_inner()
    assert not overlap.shared.inner.any(), "the optimizer began anew"
    overlap.shift(5.0, -3.0, received=True)
    assert overlap.loop.training
    assert np.array_equal(overlap.flat, np.float32([5.0, -3.0]))


def test_a_drop_in_training_keeps_what_was_handed_over() -> None:
    overlap = Overlap()
    start = overlap.flat
    overlap.loop.step()
    assert overlap.hand_over()[0] == 1
    handed = overlap.flat
    overlap.loop.step()
    assert overlap.loop.drop() == 4
    assert np.array_equal(overlap.flat, handed)
    steps, delta = overlap.hand_over(received=False)
    assert steps == 1
    assert np.array_equal(delta, start - handed)


def test_the_learning_rate_follows_the_position(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Inner(batch_size=4, learning_rate=RATE, warmup_samples=32)
    loop, _ = loop_of(Line(LineOptions()), inner=inner)
    factors: list[float] = []
    step = loop._optimizer.step

    def noted(norm: float, factor: float = 1.0) -> None:
        factors.append(factor)
        step(norm, factor)

    monkeypatch.setattr(loop._optimizer, "step", noted)
    loop.train(LANE, None, position=8)
    loop.step()
    loop.step()
    loop.hand_over(LANE, position=None, received=False)
    loop.step()
    loop.shift(LANE, None, position=20, received=True)
    # The step since the hand-over counts beside the position of the anchor.
    loop.step()
    loop.step()
    assert factors == [12 / 32, 16 / 32, 20 / 32, 28 / 32, 1.0]
