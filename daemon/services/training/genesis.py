"""Computes the parameters with which a run begins."""

from __future__ import annotations

from protocol.averaging.vector_layout import Vector
from protocol.ports.offload import Offload
from protocol.ports.trainer import TaskInfo, Trainer
from protocol.run.initial_parameters import GIVEN, initial_parameters


async def genesis_parameters(
    trainer: Trainer, info: TaskInfo, seed: int, offload: Offload
) -> Vector:
    """Return the parameters at genesis, shape (parameters,), from the run's seed and the task.

    Raises `UserError("TASK")`, and `TrainerLost` where the task gives values and its worker died.
    """
    is_given = any(spec.init == GIVEN for spec in info.specs)
    given = await trainer.given_parameters() if is_given else None
    return await offload(lambda: initial_parameters(info.specs, seed, given))
