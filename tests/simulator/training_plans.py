"""The plan of a benchmark of training, for tests that change a part of it."""

from __future__ import annotations

import msgspec

from simulator.bench.training.model_size import SIZES
from simulator.bench.training.peer_settings import ARMS
from simulator.bench.training.plan import TrainingPlan, variants_of


def plan_of(**changes: object) -> TrainingPlan:
    model = SIZES["0.4m"]
    plan = TrainingPlan(
        variants=variants_of(ARMS, (), ()),
        size="0.4m",
        peers=4,
        seeds=1,
        seconds=100.0,
        step_s=model.step_s,
        batch_size=model.batch_size,
        rate="100mbit",
        rtt_ms=30.0,
    )
    return msgspec.structs.replace(plan, **changes)
