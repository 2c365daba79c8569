"""Tests of the log lines on stderr and in the file."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.logs import set_up_logging


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
