"""The history on disk: complete, bounded, and honest about a disk that refuses."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.observer.history.feed_event import FeedEvent
from daemon.observer.history.history_store import HistoryStore, HistoryUnavailable
from protocol.status import RoundSummary, fold, status_at
from tests.story import AT, certified, folded, started

pytestmark = pytest.mark.real
LIMIT = 64_000_000
# A commit takes milliseconds; a busy machine may take seconds.
WRITTEN_S = 20.0


def a_round(number: int) -> RoundSummary:
    state = folded([started("observer"), certified(number, "observed", at=AT + number)])
    return state.rounds[0]


def an_event(number: int, kind: str = "round") -> FeedEvent:
    one = a_round(number) if kind == "round" else None
    return FeedEvent(
        id=number,
        at=AT + number,
        kind=kind,  # type: ignore[arg-type]
        level="info",
        text=f"Event {number}.",
        round=one,
    )


@contextmanager
def opened(path: Path, limit: int = LIMIT) -> Iterator[HistoryStore]:
    store = HistoryStore(path, limit)
    store.open()
    try:
        yield store
    finally:
        store.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WRITTEN_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_history_store_gives_back_rounds_and_events_page_by_page(tmp_path: Path) -> None:
    path = tmp_path / "history" / "run.sqlite"
    with opened(path) as store:
        for number in range(1, 31):
            store.add(an_event(number))
        store.add(an_event(31, "peer"))
    with opened(path) as store:
        assert store.trouble == ""
        first = store.rounds(20)
        assert [one.number for one in first] == list(range(30, 10, -1))
        rest = store.rounds(20, (first[-1].number, first[-1].certificate))
        assert [one.number for one in rest] == list(range(10, 0, -1))
        assert [one.id for one in store.events_before(31, 2)] == [30, 29]
        assert [one.id for one in store.events_after(29, 9)] == [30, 31]
        assert store.last_id() == 31
        assert store.dates() == {one.certificate: one.at for one in (*first, *rest)}


def test_history_store_has_no_round_twice_and_takes_later_scores(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with opened(path) as store:
        store.add(an_event(1))
        again = an_event(1)
        store.add(FeedEvent(id=9, at=AT, kind="round", level="info", text="", round=again.round))
    state = folded([started("observer"), certified(1, "observed", at=AT + 1)])
    scored = status_at(state, AT).rounds[0]
    with opened(path) as store:
        store.add(type(scored)(**{**_fields(scored), "held_out": 2.5, "held_out_scorers": 2}))
    with opened(path) as store:
        (only,) = store.rounds(9)
        assert (only.number, only.held_out) == (1, 2.5)


def _fields(one: RoundSummary) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def test_history_store_drops_the_oldest_when_it_is_full(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with opened(path, 400_000) as store:
        for number in range(1, 1500):
            store.add(an_event(number))
        until(store._queue.empty)
    assert path.stat().st_size < 2_000_000
    with opened(path, 400_000) as store:
        kept = [one.number for one in store.rounds(2000)]
        assert kept[0] == 1499
        assert 100 < len(kept) < 1499
        assert kept == list(range(1499, 1499 - len(kept), -1))


def test_history_store_keeps_rounds_in_a_flood_of_other_events(tmp_path: Path) -> None:
    with opened(tmp_path / "run.sqlite", 400_000) as store:
        for number in range(1, 101):
            store.add(an_event(number))
        # Strangers that connect and leave, thousands of times.
        for number in range(101, 6000):
            store.add(an_event(number, "peer"))
        until(lambda: store.last_id() == 5999)
        until(lambda: len(store.events_after(0, 6000)) < 5000)
        assert len(store.rounds(2000)) == 100
        assert store.last_id() == 5999


def test_history_store_waits_for_a_locked_file_and_reads_say_so(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with opened(path) as store:
        store.add(an_event(1))
        until(lambda: len(store.dates()) == 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        store.add(an_event(2))
        until(lambda: store.trouble != "")
        assert "another program holds it locked" in store.trouble
        with pytest.raises(HistoryUnavailable, match="locked"):
            store.rounds(9)
        other.execute("ROLLBACK")
        other.close()
        until(lambda: store.trouble == "")
        until(lambda: len(store.rounds(9)) == 2)


def test_history_store_tells_a_full_disk_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk; it holds for one process alone."""
    program = """
import resource, sys, time
from pathlib import Path
from tests.daemon.observer.test_history_store import an_event, until
from daemon.observer.history.history_store import HistoryStore
store = HistoryStore(Path(sys.argv[1]), 64_000_000)
store.open()
store.add(an_event(1))
until(lambda: len(store.dates()) == 1)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
store.add(an_event(2))
until(lambda: store.trouble != "")
print(store.trouble)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
until(lambda: store.trouble == "" and len(store.rounds(9)) == 2)
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run.sqlite")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert "the history" in done.stdout


def test_history_store_sets_a_damaged_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    path.write_bytes(b"not a database at all" * 200)
    with opened(path) as store:
        assert store.set_aside is not None
        assert store.set_aside.read_bytes().startswith(b"not a database")
        store.add(an_event(1))
        until(lambda: len(store.dates()) == 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_history_store_in_a_folder_that_refuses_says_why(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with opened(tmp_path / "history" / "run.sqlite") as store:
        assert "cannot be opened" in store.trouble
    tmp_path.chmod(0o700)


def test_history_store_loses_no_committed_round_to_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    program = """
import sys
from pathlib import Path
from tests.daemon.observer.test_history_store import an_event
from daemon.observer.history.history_store import HistoryStore
store = HistoryStore(Path(sys.argv[1]), 64_000_000)
store.open()
for number in range(1 + int(sys.argv[2]), 100_000):
    store.add(an_event(number))
    if number % 10 == 0:
        while len(store.dates()) < number: pass
        print(number, flush=True)
"""
    reached = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(reached)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert writer.stdout is not None
        for _ in range(4):
            reached = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with opened(path) as store:
            assert store.trouble == ""
            numbers = [one.number for one in store.rounds(100_000)]
            assert numbers == list(range(len(numbers), 0, -1))
            assert len(numbers) >= reached
            reached = len(numbers) // 10 * 10


def test_fold_of_a_stored_round_has_the_samples_of_each_contributor() -> None:
    state = folded([started("observer")])
    fold(state, certified(1, "observed"))
    one = state.rounds[0]
    assert one.contributed == (100, 100, 100, 100)
    assert len(one.contributed) == len(one.contributors)


def test_history_with_an_entry_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with opened(path) as store:
        store.add(an_event(1))
        until(lambda: store.last_id() == 1)
        with sqlite3.connect(path) as other:
            other.execute("UPDATE events SET body = ?", (b'{"id": "one"}',))
            other.execute("UPDATE rounds SET body = ?", (b"\xff",))
        other.close()
        for read in (
            lambda: store.events_after(0, 10),
            lambda: store.events_before(10, 10),
            lambda: store.rounds(10),
        ):
            with pytest.raises(HistoryUnavailable, match="cannot be read"):
                read()
