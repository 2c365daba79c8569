"""Makes the inner optimizer that a run chooses. Worker process only."""

from __future__ import annotations

from daemon.device.model.flat_model import FlatModel
from daemon.device.optimizers.adamw import AdamW
from daemon.device.optimizers.muon import Muon
from daemon.device.optimizers.optimizer import InnerOptimizer
from daemon.device.optimizers.parameter_groups import parts_of
from daemon.device.optimizers.sgd import Sgd
from daemon.device.tasks.task import Task
from protocol.run.manifest import Inner


def make_optimizer(net: FlatModel, rules: Inner, task: Task) -> InnerOptimizer:
    """Return the run's optimizer over the model's parameters.

    Raises `TaskFault` for parameter groups of the task that cannot be used.
    """
    parts = parts_of(net, rules, task)
    if rules.optimizer == "sgd":
        return Sgd(net, rules, parts)
    if rules.optimizer == "muon":
        return Muon(net, rules, parts)
    return AdamW(net, rules, parts)
