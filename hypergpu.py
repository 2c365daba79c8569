"""The only import for authors of training tasks: `from hypergpu import Task, TaskOptions`.

It does not import torch.
"""

from daemon.device.tasks.task import ONES, ZEROS, Batch, Init, Task, TaskOptions, uniform

__all__ = ["ONES", "ZEROS", "Batch", "Init", "Task", "TaskOptions", "uniform"]
