"""Tests that the processes of a task end with its worker, whichever process is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.device.recorded_events import gone_within
from tests.daemon.device.test_parent_death import parent_of

pytestmark = pytest.mark.real

# It takes milliseconds on an idle machine.
GONE_S = 10.0
Kill = Callable[[int, int, int], None]


def kill(*processes: int) -> None:
    for pid in processes:
        os.kill(pid, signal.SIGKILL)


KILLS: dict[str, Kill] = {
    "the node": lambda node, _guard, _worker: kill(node),
    "the worker": lambda _node, _guard, worker: kill(worker),
    "the node and the worker": lambda node, _guard, worker: kill(node, worker),
    "the worker and the node": lambda node, _guard, worker: kill(worker, node),
    "no process: the node ends in order": lambda node, _guard, _worker: os.kill(
        node, signal.SIGINT
    ),
}


def eldest_of(guard: int) -> int:
    """Return the worker: the first child of its guard, which adopts others later."""
    return int(Path(f"/proc/{guard}/task/{guard}/children").read_text(encoding="ascii").split()[0])


@pytest.mark.parametrize("killed", KILLS)
def test_the_guard_ends_all_processes_of_a_task(note: Path, killed: str) -> None:
    with parent_of("faulty_tasks:Scatters", "importing") as (node, guard):
        family = [int(pid) for pid in note.read_text(encoding="ascii").split()]
        assert not any(gone_within(pid, 0.0) for pid in family)
        KILLS[killed](node.pid, guard, eldest_of(guard))
        assert [pid for pid in family if not gone_within(pid, GONE_S)] == []


def test_the_node_ends_all_processes_with_the_mark_of_a_killed_guard(note: Path) -> None:
    with parent_of("faulty_tasks:Scatters", "importing") as (_node, guard):
        *family, bare = (int(pid) for pid in note.read_text(encoding="ascii").split())
        worker = eldest_of(guard)
        kill(guard)
        assert [pid for pid in (worker, *family) if not gone_within(pid, GONE_S)] == []
        # This one has no environment, so its mark is lost.
        kill(bare)
