"""The models of the benchmark, with the settings of each arm that were tuned for them.

Each learning rate is the best of the same five (5e-4, 1e-3, 2e-3, 4e-3, 8e-3) at 100 s with seed 1;
target batches are the best of three. docs/internals/performance.md has the figures.
"""

from __future__ import annotations

import msgspec

from simulator.bench.training.peer_settings import Arm, HivemindRules


class ArmTuning(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one arm for one model."""

    learning_rate: float
    hivemind: HivemindRules | None = None


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """A byte GPT, the batch and pace of a step, and the arms' tuning.

    The pace leaves half of two cores idle with four peers, so that steps are on time.
    """

    layers: int
    width: int
    heads: int
    context: int
    batch_size: int
    step_s: float
    tuning: dict[Arm, ArmTuning]


SIZES = {
    # 435,456 parameters: a step computes for 24 ms on one core.
    "0.4m": ModelSize(
        layers=2,
        width=128,
        heads=4,
        context=64,
        batch_size=8,
        step_s=0.2,
        tuning={
            "alone": ArmTuning(learning_rate=2e-3),
            "gloo": ArmTuning(learning_rate=4e-3),
            "hivemind-a": ArmTuning(
                learning_rate=4e-3, hivemind=HivemindRules(target_batch_size=256)
            ),
            "hivemind-b": ArmTuning(
                learning_rate=2e-3, hivemind=HivemindRules(target_batch_size=640)
            ),
        },
    ),
    # 4,807,168 parameters: a step computes for 0.15 s on one core.
    "5m": ModelSize(
        layers=6,
        width=256,
        heads=8,
        context=64,
        batch_size=4,
        step_s=0.6,
        tuning={
            "alone": ArmTuning(learning_rate=1e-3),
            "gloo": ArmTuning(learning_rate=2e-3),
            "hivemind-a": ArmTuning(
                learning_rate=2e-3, hivemind=HivemindRules(target_batch_size=128)
            ),
            "hivemind-b": ArmTuning(
                learning_rate=1e-3, hivemind=HivemindRules(target_batch_size=160)
            ),
        },
    ),
}
