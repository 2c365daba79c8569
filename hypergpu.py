"""The one import for people who write training tasks: `from hypergpu import Task, TaskOptions`.

Does not import torch.
"""

from daemon.device.tasks.task import ONES, ZEROS, Batch, Init, Task, TaskOptions, uniform

__all__ = ["ONES", "ZEROS", "Batch", "Init", "Task", "TaskOptions", "uniform"]
