"""The models of the benchmark, with the settings of each arm that were tuned for them.

All arms have the run file's optimizer, Muon, at rates of their own. Held-out loss with seed 1, in
one process, a batch of 8 and a momentum of 0.9:

* 0.4m, alone, after 500 steps at 1e-3, 2e-3, 4e-3, 8e-3: 1.342, 1.168, 1.134, 1.185.
* 0.4m, data parallel, steps to 1.55 at 4e-3 and 8e-3: 87 and 67.
* 0.4m, four members who average every three steps, one late, to 1.55 at 8e-3 and 12e-3: 94 and 86.
* 5m, alone, batch 4, after 166 steps at 2e-3 and 4e-3: 1.919 and 2.043.

The rates of hivemind's arms are those of data parallel and of the members. `--set` changes each.
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
            "alone": ArmTuning(learning_rate=4e-3),
            "gloo": ArmTuning(learning_rate=8e-3),
            "hivemind-a": ArmTuning(
                learning_rate=8e-3, hivemind=HivemindRules(target_batch_size=256)
            ),
            "hivemind-b": ArmTuning(
                learning_rate=8e-3, hivemind=HivemindRules(target_batch_size=640)
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
            "alone": ArmTuning(learning_rate=2e-3),
            "gloo": ArmTuning(learning_rate=4e-3),
            "hivemind-a": ArmTuning(
                learning_rate=4e-3, hivemind=HivemindRules(target_batch_size=128)
            ),
            "hivemind-b": ArmTuning(
                learning_rate=4e-3, hivemind=HivemindRules(target_batch_size=160)
            ),
        },
    ),
    # 19,595,520 parameters, to measure memory: nothing was tuned for it. A step computes for 0.4 s
    # on one core.
    "20m": ModelSize(
        layers=11,
        width=384,
        heads=8,
        context=32,
        batch_size=1,
        step_s=1.5,
        tuning={
            "alone": ArmTuning(learning_rate=5e-4),
            "gloo": ArmTuning(learning_rate=5e-4),
            "hivemind-a": ArmTuning(
                learning_rate=5e-4, hivemind=HivemindRules(target_batch_size=32)
            ),
            "hivemind-b": ArmTuning(
                learning_rate=5e-4, hivemind=HivemindRules(target_batch_size=40)
            ),
        },
    ),
}
