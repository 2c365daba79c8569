"""The settings of the worker, from a node's configuration."""

from __future__ import annotations

from daemon.config.settings import Config
from daemon.device.settings import WorkerSettings


def worker_settings(config: Config) -> WorkerSettings:
    """Return what `[worker]` and `[limits]` of a node's configuration say."""
    worker = config.worker
    return WorkerSettings(
        device=worker.device,
        threads=worker.threads,
        nice=worker.nice,
        precision=worker.precision,
        batch_part=worker.batch_part,
        compile=worker.compile,
        allow_custom_task=worker.allow_custom_task,
        data_folders=worker.data_folders,
        load_timeout_s=worker.load_timeout_s,
        memory_gb=config.limits.memory_gb,
    )
