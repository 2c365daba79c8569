"""Tests the outer step of `MemberState`, and what the state restores after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.disk.file_disk import FileDisk
from daemon.services.training.hivemind.member_state import MemberState
from protocol.averaging.outer_step import outer_step
from protocol.averaging.vector_layout import Vector
from protocol.errors import OurFault
from protocol.ports.offload import inline
from protocol.ports.trainer import ParameterSpec, TaskInfo
from protocol.run.manifest import Limits, Manifest

RUN = bytes(range(32))
COUNT = 1000
MANIFEST = Manifest(
    name="x", task="simple_cnn", engine="hivemind", seed=5, limits=Limits(max_samples=100)
)


def info(count: int = COUNT) -> TaskInfo:
    spec = ParameterSpec(name="w", shape=(count,), init="uniform", bound=1.0)
    return TaskInfo(parameters=count, specs=(spec,), dataset_size=10, device="cpu", threads=1)


def random(seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(COUNT, dtype=np.float32)


def member_state(disk: FileDisk, count: int = COUNT) -> MemberState:
    return MemberState(run=RUN, manifest=MANIFEST, info=info(count), disk=disk, offload=inline)


@pytest.fixture
def disk(tmp_path: Path) -> FileDisk:
    return FileDisk(tmp_path, inline)


async def test_members_begin_equal_and_make_the_same_outer_step(disk: FileDisk) -> None:
    one, other = member_state(disk), member_state(disk)
    assert await one.load() == await other.load() == "beginning at genesis"
    assert (one.anchor == other.anchor).all()
    assert one.anchor.any()
    before = one.anchor.copy()
    await one.add(random(1), 40)
    await one.apply(random(2))
    expected, momentum = np.empty(COUNT, np.float32), np.empty(COUNT, np.float32)
    outer_step(before, np.zeros(COUNT, np.float32), random(2), MANIFEST.outer, expected, momentum)
    assert (one.anchor == expected).all()
    assert (one.momentum == momentum).all()
    assert (one.number, one.samples) == (1, 0)
    assert not one.pending.any()


async def test_pending_work_adds_up_and_its_weight_is_limited(disk: FileDisk) -> None:
    state = member_state(disk)
    await state.load()
    await state.add(random(1), 60)
    await state.add(random(2), 60)
    await state.add(random(3), 0)
    assert (state.pending == random(1) + random(2)).all()
    assert state.samples == 100


async def test_a_mean_that_is_not_finite_changes_nothing(disk: FileDisk) -> None:
    state = member_state(disk)
    await state.load()
    await state.add(random(1), 7)
    before, bad = state.anchor.copy(), random(2)
    bad[3] = np.inf
    with pytest.raises(ValueError, match="finite"):
        await state.apply(bad)
    assert (state.anchor == before).all()
    assert (state.number, state.samples) == (0, 7)


async def test_a_restart_restores_the_state_and_the_pending_work(disk: FileDisk) -> None:
    state = member_state(disk)
    await state.load()
    await state.apply(random(1))
    state.inner = random(9)
    await state.save()
    await state.add(random(2), 30)
    await state.save_pending()
    back = member_state(disk)
    assert await back.load() == "resuming from round 1, 30 samples pending"
    assert (back.anchor == state.anchor).all()
    assert (back.momentum == state.momentum).all()
    assert (back.inner == state.inner).all()
    assert (back.pending == random(2)).all()
    assert (await back.local_parameters() == back.anchor - random(2)).all(), (
        "training continues from the same parameters"
    )
    assert back.drawn == 30, "training does not draw these samples again"

    await back.apply(random(3))
    await back.save()
    again = member_state(disk)
    assert await again.load() == "resuming from round 2", (
        "averaged work does not become pending again"
    )


async def test_load_refuses_the_checkpoint_of_another_model(disk: FileDisk) -> None:
    state = member_state(disk)
    await state.load()
    await state.apply(random(1))
    await state.save()
    with pytest.raises(OurFault, match="1000 parameters"):
        await member_state(disk, COUNT + 1).load()


async def test_replace_adopts_another_members_state(disk: FileDisk) -> None:
    state = member_state(disk)
    await state.load()
    await state.add(random(1), 7)
    state.replace(12, random(2), random(3))
    assert (state.number, state.samples) == (12, 0)
    assert (state.anchor == random(2)).all()
    assert (state.momentum == random(3)).all()
    assert not state.pending.any()
