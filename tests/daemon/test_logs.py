"""Tests of the log lines on stderr and in the file."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.log_budget import BURST_BYTES, LogBudget
from daemon.logs import set_up_logging
from daemon.node.app import is_routine, log_events
from protocol.journal import PeerDown, Warned
from protocol.status import EventLog
from tests.story import AT, certified

DAY_S, ROUND_S = 86_400, 5


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_quiet_logging_shows_only_errors_and_files_everything(tmp_path: Path) -> None:
    stream, file = io.StringIO(), tmp_path / "log"
    set_up_logging(quiet=True, file=file, stream=stream)
    log = logging.getLogger("daemon.test")
    log.info("said")
    log.warning("warned")
    log.error("failed")
    assert [line.rpartition("  ")[2] for line in stream.getvalue().splitlines()] == ["failed"]
    assert [
        json.loads(line)["message"] for line in file.read_text(encoding="utf-8").splitlines()
    ] == ["said", "warned", "failed"]


def test_the_text_of_a_peer_cannot_control_the_terminal() -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream)
    logging.getLogger("daemon.test").warning("a run named %s", "\x1b[31m\u202eevil\r\x07")
    assert all(line.isprintable() for line in stream.getvalue().splitlines())


class _Clock:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def day_of_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, verbose: bool, step_s: int, storm: bool
) -> str:
    """Write the log of a day of rounds, where `storm` adds a warning to each. Returns the file."""
    clock, file = _Clock(), folder / "log"
    monkeypatch.setattr("daemon.logs.time.monotonic", clock.monotonic)
    monkeypatch.setattr("daemon.logs.LOG_FILE_BYTES", 1 << 30)
    set_up_logging(verbose=verbose, quiet=True, file=file, stream=io.StringIO())
    hear = log_events(EventLog())
    for at in range(0, DAY_S, step_s):
        clock.now = float(at)
        hear(certified(at // step_s + 1, at=AT + at))
        if storm:
            hear(Warned(at=AT + at, code="TRY", message="No certificate for this try. " * 4))
    # The file begins with its first line.
    return file.read_text(encoding="utf-8") if file.exists() else ""


def test_log_of_a_day_of_rounds_has_no_line_for_each_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert day_of_log(tmp_path, monkeypatch, verbose=False, step_s=ROUND_S, storm=False) == ""


def test_log_of_a_day_of_trouble_stays_below_a_megabyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = day_of_log(tmp_path, monkeypatch, verbose=False, step_s=2 * ROUND_S, storm=True)
    assert 500_000 < len(log) < 1_000_000
    assert "lines before this one left out; hypergpud -v start logs all] No certificate" in log


def test_verbose_log_has_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = day_of_log(tmp_path, monkeypatch, verbose=True, step_s=600, storm=True)
    assert len(log.splitlines()) == 2 * DAY_S // 600
    assert "left out" not in log


def test_log_budget_writes_errors_always_and_counts_them() -> None:
    budget = LogBudget(0.0)
    assert budget.allows(BURST_BYTES, is_error=False, now=0.0)
    assert not budget.allows(100, is_error=False, now=0.0)
    assert budget.allows(10_000, is_error=True, now=0.0)
    assert not budget.allows(100, is_error=False, now=600.0)
    assert budget.note().startswith("[2 lines before")
    assert budget.note() == ""


def test_only_events_without_trouble_are_routine() -> None:
    assert is_routine(certified(1, "counted"))
    assert not is_routine(certified(1, "late"))
    assert not is_routine(Warned(code="X", message="x"))
    assert not is_routine(PeerDown(peer="p", reason="gone"))


class _Refusing(io.StringIO):
    """A terminal that was closed, or a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_stderr_that_refuses_lines_gets_no_tracebacks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(file=tmp_path / "log", stream=_Refusing())
    logging.getLogger("daemon.test").warning("warned")
    assert capfd.readouterr() == ("", "")
    assert "warned" in (tmp_path / "log").read_text(encoding="utf-8")
