"""What a task started ends with its worker, whoever is killed.

Real processes, watched from outside.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.device.recorded_events import gone_within
from tests.daemon.device.test_parent_death import parent_of

pytestmark = pytest.mark.real

# It takes milliseconds; a busy machine may take its time.
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
    "nobody: the node ends in order": lambda node, _guard, _worker: os.kill(node, signal.SIGINT),
}


def eldest_of(guard: int) -> int:
    """The worker: the first child of its guard, which adopts others later."""
    return int(Path(f"/proc/{guard}/task/{guard}/children").read_text(encoding="ascii").split()[0])


@pytest.mark.parametrize("killed", KILLS)
def test_nothing_is_left_of_what_a_task_started(note: Path, killed: str) -> None:
    with parent_of("faulty_tasks:Scatters", "importing") as (node, guard):
        family = [int(pid) for pid in note.read_text(encoding="ascii").split()]
        assert not any(gone_within(pid, 0.0) for pid in family)
        KILLS[killed](node.pid, guard, eldest_of(guard))
        assert [pid for pid in family if not gone_within(pid, GONE_S)] == []


def test_the_guard_alone_is_killed_and_the_node_ends_all_that_carry_its_mark(note: Path) -> None:
    with parent_of("faulty_tasks:Scatters", "importing") as (_node, guard):
        *family, bare = (int(pid) for pid in note.read_text(encoding="ascii").split())
        worker = eldest_of(guard)
        kill(guard)
        assert [pid for pid in (worker, *family) if not gone_within(pid, GONE_S)] == []
        # Its environment is empty: nobody can tell whose it is.
        kill(bare)
