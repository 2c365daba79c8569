"""Starts a worker process, and sets the size of its thread pools."""

from __future__ import annotations

import logging

from daemon.children.process import STDERR_GRACE_S, ChildProcess
from daemon.device.messages import WorkerReport, decode_report
from daemon.device.settings import WorkerSettings, choose_threads

__all__ = ["STDERR_GRACE_S", "start_worker"]


def start_worker(settings: WorkerSettings) -> ChildProcess[WorkerReport]:
    """Spawn a worker process."""

    threads = str(choose_threads(settings.threads))
    return ChildProcess(
        "daemon.device.main",
        decode_report,
        logging.getLogger("hypergpu.worker.output"),
        # The order of a set of texts, from which tasks build modules, is the same on every node and
        # after every restart.
        environment={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONHASHSEED": "0"},
        guarded=True,
    )
