"""A task that fails: the status shows the traceback, the node stays up, and its exit code is 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.swarm import STOP_S, UP_S, Swarm

TASKS = Path(__file__).parents[1] / "daemon" / "worker"
RUN = """
name = "fails"
task = "faulty_tasks:Fails"
[round]
seconds = {seconds}
"""

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]


def test_task_that_fails_at_every_batch_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three restarts take 7 s of pauses, and three imports of torch."""
    monkeypatch.setenv("PYTHONPATH", str(TASKS))
    worker = {"threads": 1, "device": "cpu", "allow_custom_task": True}
    with Swarm(tmp_path, run=RUN) as swarm:
        node = swarm.begin("volunteer", worker=worker)
        swarm.until(
            lambda: "Training stopped" in node.now().verdict, "the task is given up", 2 * UP_S
        )
        status = node.now()
        assert status.level == "bad"
        assert "faulty_tasks.py:" in status.verdict
        assert "RuntimeError: the cat sat on the data" in status.verdict
        assert any(
            'raise RuntimeError("the cat sat on the data")' in line
            for line in status.you.failure_trace
        )
        assert status.you.worker_restarts == 3
        assert 'raise RuntimeError("the cat sat on the data")' in node.log()
        node.ask_to_stop()
        assert node.wait(STOP_S)
        assert node.ending == "ended with exit code 1"
