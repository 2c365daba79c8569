"""Tests of the journal and the log, also on a disk that refuses to write."""

from __future__ import annotations

import logging
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from daemon import journal as module
from daemon.journal import Journal
from daemon.logs import set_up_logging
from protocol.journal import (
    JournalEvent,
    PeerDown,
    TrafficReport,
    TrainerReady,
    Warned,
    decode_event,
)


def ready(number: int = 0) -> TrainerReady:
    return TrainerReady(device="cpu", parameters=number, threads=1)


def lines(path: Path) -> list[JournalEvent]:
    return [decode_event(line) for line in path.read_bytes().splitlines()]


def test_record_stamps_an_event_and_calls_the_listeners(tmp_path: Path) -> None:
    clock = iter([10.0, 11.0, 12.0])
    journal = Journal(tmp_path / "j", lambda: next(clock))
    seen: list[JournalEvent] = []
    journal.add_listener(seen.append)
    journal.record(ready(7))
    journal.record(
        TrafficReport(
            control_sent=1, control_received=2, bulk_sent=3, bulk_received=4, connections=5
        )
    )
    status = journal.status()
    assert [event.at for event in seen] == [10.0, 11.0]
    assert status.as_of == 12.0
    assert status.run.parameters == 7
    assert status.network.bulk_sent == 3
    journal.flush()
    # Measurements are not durable.
    assert lines(tmp_path / "j") == seen[:1]
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600


async def test_a_journal_without_a_path_writes_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    journal = Journal(None, lambda: 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        journal.record(ready())
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


async def test_run_writes_within_a_second_and_the_rest_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, lambda: 1.0)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            journal.record(ready(1))
            while not path.exists() or not path.read_bytes():
                await trio.sleep(0.05)
            journal.record(ready(2))
            nursery.cancel_scope.cancel()
    assert [event.parameters for event in lines(path) if isinstance(event, TrainerReady)] == [1, 2]


def test_a_torn_last_line_does_not_spoil_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"type":"TrainerReady","dev')
    journal = Journal(path, lambda: 1.0)
    journal.record(ready(3))
    journal.flush()
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"type":"TrainerReady","dev'
    assert decode_event(whole) == msgspec.structs.replace(ready(3), at=1.0)


def test_the_journal_rotates_and_keeps_two_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROTATE_BYTES", 300)
    path = tmp_path / "j"
    journal = Journal(path, lambda: 1.0)
    for number in range(20):
        journal.record(ready(number))
        journal.flush()
    assert sorted(os.listdir(tmp_path)) == ["j", "j.1", "j.2"]
    kept = [
        event.parameters
        for name in ("j.2", "j.1", "j")
        for event in lines(tmp_path / name)
        if isinstance(event, TrainerReady)
    ]
    assert kept == list(range(kept[0], 20))
    assert all((tmp_path / name).stat().st_size <= 300 for name in os.listdir(tmp_path))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the files of this process to `size` bytes, which imitates a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_reported_once_and_no_event_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j"
    journal = Journal(path, lambda: 1.0)
    seen: list[JournalEvent] = []
    journal.add_listener(seen.append)
    journal.record(ready(1))
    journal.flush()
    first = path.stat().st_size
    with caplog.at_level(logging.WARNING), file_size_limit(first + 40):
        for number in (2, 3):
            journal.record(ready(number))
            journal.flush()
            assert path.stat().st_size == first, "half a line was written"
    assert sum(isinstance(event, Warned) for event in seen) == 1
    assert "Training continues" in caplog.text
    journal.flush()
    assert [event.parameters for event in lines(path) if isinstance(event, TrainerReady)] == [
        1,
        2,
        3,
    ]
    assert "nothing is missing" in journal.status().events[0].text


def test_memory_is_bounded_while_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    # A directory cannot be written.
    (tmp_path / "j").mkdir()
    journal = Journal(tmp_path / "j", lambda: 1.0)
    for number in range(50):
        journal.record(PeerDown(peer=str(number), reason="gone"))
        if number % 7 == 0:
            journal.flush()
    (tmp_path / "j").rmdir()
    journal.flush()
    written = [event for event in lines(tmp_path / "j") if isinstance(event, PeerDown)]
    assert [event.peer for event in written] == [str(number) for number in range(40, 50)]
    assert "events are missing" in journal.status().events[0].text


def test_logs_are_lines_on_stderr_and_json_in_the_file(tmp_path: Path) -> None:
    code = (
        "import logging, pathlib, sys; from daemon.logs import set_up_logging\n"
        "set_up_logging(file=pathlib.Path(sys.argv[1]))\n"
        "ours, theirs = logging.getLogger('daemon.x'), logging.getLogger('libp2p')\n"
        "ours.info('two\\nlines'); ours.debug('hidden')\n"
        "theirs.info('hidden'); theirs.warning('shown')\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    records = [
        msgspec.json.decode(line, type=dict)
        for line in (tmp_path / "log").read_bytes().splitlines()
    ]
    assert [(record["logger"], record["level"], record["message"]) for record in records] == [
        ("daemon.x", "info", "two\nlines"),
        ("libp2p", "warning", "shown"),
    ]
    assert "shown" in shown.stderr
    assert "hidden" not in shown.stderr
    assert shown.stdout == ""
    assert set_up_logging.__doc__


def test_a_log_file_that_cannot_be_written_is_reported_once(
    tmp_path: Path,
) -> None:
    code = (
        "import logging, os, pathlib, sys; from daemon.logs import set_up_logging\n"
        "file = pathlib.Path(sys.argv[1]); set_up_logging(file=file)\n"
        "log = logging.getLogger('daemon.x')\n"
        "log.info('one'); log.info('two'); file.rmdir(); log.info('three'); log.info('four')\n"
    )
    (tmp_path / "log").mkdir()
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert shown.stderr.count("cannot be written (Is a directory)") == 1
    assert "Traceback" not in shown.stderr
    assert all(word in shown.stderr for word in ("one", "two", "three", "four"))
    records = [
        msgspec.json.decode(line, type=dict)
        for line in (tmp_path / "log").read_bytes().splitlines()
    ]
    assert [record["message"] for record in records] == ["three", "four"]
