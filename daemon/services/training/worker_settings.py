"""The settings of the worker, from a node's configuration."""

from __future__ import annotations

from daemon.config.settings import Config, WorkerConfig
from daemon.device.settings import WorkerSettings

TURN_FILE = "device-turn"


def worker_settings(worker: WorkerConfig, turn_file: str = "") -> WorkerSettings:
    """Return what `[worker]` of a node's configuration says."""
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
        turn_file=turn_file,
    )


def shared_worker_settings(config: Config) -> WorkerSettings:
    """Return the settings of a node's processes, which share the device where it also serves."""
    serves = bool(config.inference.model)
    return worker_settings(config.worker, str(config.home / TURN_FILE) if serves else "")
