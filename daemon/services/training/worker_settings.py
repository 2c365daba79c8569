"""The settings of the worker, from a node's configuration."""

from __future__ import annotations

from daemon.config.settings import Config
from daemon.device.settings import WorkerSettings

TURN_FILE = "device-turn"


def worker_settings(config: Config, turn_file: str = "") -> WorkerSettings:
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
        turn_file=turn_file,
    )


def shared_worker_settings(config: Config) -> WorkerSettings:
    """Return the settings of a node's processes, which share the device where it also serves."""
    serves = bool(config.inference.model)
    return worker_settings(config, str(config.home / TURN_FILE) if serves else "")
