"""The only import for authors of training tasks: `from hypergpu import Task, TaskOptions`.

It does not import torch.
"""

from daemon.device.tasks.language_task import LanguageTask
from daemon.device.tasks.task import GIVEN, ONES, ZEROS, Batch, Init, Task, TaskOptions, uniform

__all__ = [
    "GIVEN",
    "ONES",
    "ZEROS",
    "Batch",
    "Init",
    "LanguageTask",
    "Task",
    "TaskOptions",
    "uniform",
]
