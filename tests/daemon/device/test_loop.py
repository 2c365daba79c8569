"""Tests of the numerics: the flat model, AdamW against torch's, lanes and deltas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from daemon.device.loops.training import TrainingLoop
from daemon.device.model.flat_model import FlatModel
from daemon.device.optimizers.adamw import AdamW
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.task import Task
from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner
from tests.daemon.device.faulty_tasks import Line, LineOptions
from tests.daemon.device.loops import SETTINGS, loop_of

OPTIONS = {"layers": 2, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 50_000}


def gpt() -> Task:
    return load_task("byte_gpt", OPTIONS, SETTINGS)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_makes_the_same_steps_as_torch(weight_decay: float) -> None:
    """The reference is `torch.optim.AdamW` with `clip_grad_norm_`."""
    task, rules = gpt(), Inner(learning_rate=1e-2, weight_decay=weight_decay, clip_norm=0.5)
    flat = FlatModel(task, torch.device("cpu"))
    flat.flat.copy_(torch.from_numpy(initial_parameters(flat.specs, 1)))
    ours = AdamW(flat, rules)
    theirs = task.model()
    with torch.no_grad():
        for mine, other in zip(flat.model.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine)
    groups = [
        {
            "params": [part for part in theirs.parameters() if part.ndim >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [part for part in theirs.parameters() if part.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=rules.learning_rate, betas=(rules.beta1, rules.beta2), foreach=False
    )
    for step in range(6):
        batch = task.batch(np.arange(4) + 4 * step)
        flat.zero_grad()
        task.loss(flat.model, batch).backward()
        ours.step(float(flat.grad_norm()))
        optimizer.zero_grad()
        task.loss(theirs, batch).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), rules.clip_norm)
        optimizer.step()
    expected = torch.cat([part.detach().flatten() for part in theirs.parameters()])
    torch.testing.assert_close(flat.flat, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_computes_the_bytes_of_torch_fused(weight_decay: float) -> None:
    """The same gradients, without clipping, through `torch.optim.AdamW(fused=True)`."""
    task, rules = gpt(), Inner(learning_rate=1e-2, weight_decay=weight_decay, clip_norm=1e9)
    flat = FlatModel(task, torch.device("cpu"))
    flat.flat.copy_(torch.from_numpy(initial_parameters(flat.specs, 1)))
    ours = AdamW(flat, rules)
    theirs = [torch.nn.Parameter(part.detach().clone()) for part in flat.model.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [part for part in theirs if part.ndim >= 2], "weight_decay": weight_decay},
            {"params": [part for part in theirs if part.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(rules.beta1, rules.beta2),
        fused=True,
    )
    for step, factor in enumerate((0.25, 0.5, 1.0, 0.7)):
        flat.zero_grad()
        task.loss(flat.model, task.batch(np.arange(4) + 4 * step)).backward()
        for part, (_, _, gradient) in zip(theirs, flat.moved, strict=True):
            part.grad = gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] = rules.learning_rate * factor
        optimizer.step()
        ours.step(float(flat.grad_norm()), factor)
    expected = torch.cat([part.detach().flatten() for part in theirs])
    assert torch.equal(flat.flat, expected)


def test_parameters_and_gradients_are_views_of_flat_vectors() -> None:
    task = gpt()
    flat = FlatModel(task, torch.device("cpu"))
    assert flat.flat.numel() == sum(int(np.prod(spec.shape)) for spec in flat.specs)
    flat.flat.fill_(0.25)
    assert all(bool((part == 0.25).all()) for part in flat.model.parameters())
    task.loss(flat.model, task.batch(np.arange(2))).backward()
    joined = torch.cat(
        [part.grad.flatten() for part in flat.model.parameters() if part.grad is not None]
    )
    assert torch.equal(joined, flat.grad)
    flat.zero_grad()
    assert not flat.grad.any()


def test_adamw_saves_step_counts_above_the_range_of_float32() -> None:
    """A float32 holds integers up to 2**24; a run may have more steps."""
    flat = FlatModel(Line(LineOptions()), torch.device("cpu"))
    optimizer = AdamW(flat, Inner())
    optimizer._steps = (1 << 24) + 12345
    state = torch.empty(optimizer.state_size)
    optimizer.save(state)
    again = AdamW(flat, Inner())
    again.load(state)
    assert again._steps == (1 << 24) + 12345


@pytest.mark.parametrize(
    "spoil", [(0, float("inf")), (2, -1.0), (4, 0.5), (5, -1.0), (5, float(1 << 20))]
)
def test_adamw_refuses_an_impossible_state(spoil: tuple[int, float]) -> None:
    # With two parameters, places 0 and 1 have the first moment, 2 and 3 the second, 4 and 5 the
    # step count.
    flat = FlatModel(Line(LineOptions()), torch.device("cpu"))
    optimizer = AdamW(flat, Inner())
    state = torch.zeros(optimizer.state_size)
    state[spoil[0]] = spoil[1]
    with pytest.raises(ValueError, match="inner optimizer"):
        optimizer.load(state)


def train(loop: TrainingLoop, steps: int) -> None:
    for _ in range(steps):
        loop.step()


def test_a_loop_continues_its_lane_and_begins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Line(LineOptions())
    drawn: list[list[int]] = []
    fetch = task.batch
    monkeypatch.setattr(
        task, "batch", lambda indices: (drawn.append(indices.tolist()), fetch(indices))[1]
    )
    loop, _ = loop_of(task, "line", Inner(batch_size=5))
    lane, other = Lane(base=0, index=0, stride=2), Lane(base=0, index=1, stride=2)
    loop.train(lane, None)
    train(loop, 4)
    loop.pause()
    loop.resume(lane, None)
    train(loop, 6)
    # The lane is half of the pass, and each sample of it was drawn once.
    assert len({index for batch in drawn for index in batch}) == 50
    loop.resume(other, None)
    train(loop, 10)
    assert sorted(index for batch in drawn for index in batch) == list(range(100))
    loop.train(lane, None)
    train(loop, 1)
    assert drawn[-1] == drawn[0]


def test_a_delta_is_the_start_minus_the_present_parameters() -> None:
    loop, shared = loop_of(Line(LineOptions()), "line", Inner(batch_size=5, learning_rate=0.01))
    start = shared.anchor.copy()
    loop.train(Lane(base=0, index=0, stride=1), 7)
    while loop.training:
        loop.step()
    first = loop.pause()
    assert (first.steps, first.samples) == (7, 35)
    now: Vector = start - shared.delta
    # The node did not receive the work, so it stays.
    again = loop.pause()
    assert again == first
    loop.acknowledge(received=True)
    assert loop.pause().samples == 0
    assert not shared.delta.any()
    loop.resume(Lane(base=0, index=0, stride=1), 1)
    loop.step()
    loop.pause()
    assert shared.delta.any()
    shared.anchor[:] = now
    loop.train(Lane(base=35, index=0, stride=1), 0)
    assert np.array_equal(shared.anchor, now)


def test_a_loop_trains_in_bfloat16() -> None:
    """The precision changes the arithmetic, but not the type of the parameters."""
    settings = WorkerSettings(device="cpu", threads=1, precision="bfloat16")
    task = gpt()
    loop, shared = loop_of(task, "byte_gpt", Inner(learning_rate=3e-3), settings)
    loop.train(Lane(base=0, index=0, stride=1), 10)
    while loop.training:
        loop.step()
    work = loop.pause()
    assert work.dropped == 0
    assert work.loss is not None
    assert work.loss < 5.6
    assert shared.delta.dtype == np.float32
