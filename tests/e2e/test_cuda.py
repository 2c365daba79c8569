"""Real daemons that train on a CUDA device certify rounds together."""

from __future__ import annotations

import ctypes
import importlib.metadata
from pathlib import Path

import pytest

from tests.e2e.swarm import UP_S, Daemon, Swarm, certified

ROUNDS = 4
# The first use of a device loads its libraries, for each worker.
LIMIT_S = 180.0


def missing_for_cuda() -> str:
    """Why no worker can train on CUDA here; "" where it can.

    The driver itself is asked: torch takes seconds to load, which a skipped test should not cost.
    """
    if "+cpu" in importlib.metadata.version("torch"):
        return "the installed torch is a CPU build"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA driver: libcuda.so.1 is not installed"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the CUDA driver finds no device"
    return ""


pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_for_cuda()), reason=missing_for_cuda() or "-"),
]


def test_daemons_certify_four_rounds_on_cuda(tmp_path: Path) -> None:
    on_cuda = {"threads": 1, "device": "cuda"}
    with Swarm(tmp_path, round_s=3.0) as swarm:
        first = swarm.begin(worker=on_cuda)
        nodes = [first, swarm.join("second", first, worker=on_cuda)]
        swarm.until(lambda: all(_device(node) for node in nodes), "both workers are up", LIMIT_S)
        for node in nodes:
            assert not _device(node).startswith("cpu"), _device(node)
        swarm.until(lambda: len(_whole(first)) >= ROUNDS, f"{ROUNDS} rounds count both", LIMIT_S)
        reached = max(_whole(first))
        swarm.until_round(reached, *nodes, limit_s=UP_S)
        for number in sorted(_whole(first))[:ROUNDS]:
            states = {certified(node.now())[number].state_digest for node in nodes} - {""}
            assert len(states) == 1, f"certificate {number}: one state"
        losses = [certified(first.now())[number].loss for number in sorted(_whole(first))]
        print(f"{_device(first)}: losses {losses}")
        assert losses[0] is not None
        assert losses[-1] is not None
        assert losses[-1] < losses[0]
        assert [node.now().you.worker_restarts for node in nodes] == [0, 0]
        swarm.stop(*nodes)
        agreement = swarm.agreement(*nodes)
        assert agreement.agreed, agreement.reason
        for node in nodes:
            assert "Traceback" not in node.log()


def _device(daemon: Daemon) -> str:
    status = daemon.status()
    return status.you.device if status is not None else ""


def _whole(daemon: Daemon) -> list[int]:
    """The numbers of the certificates that count both daemons."""
    status = daemon.now()
    return [number for number, known in certified(status).items() if len(known.contributors) == 2]
