"""Setup of all tests."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

# A shell starts background jobs with SIGINT ignored, and their children inherit that. Tests that
# interrupt our programs need the default action, as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuse a mark that `.ci/test.sh` cannot see: it looks for the marks in the files of tests."""
    for mark in ("alone", "swarm"):
        for path in {item.path for item in items if item.get_closest_marker(mark)}:
            if f"mark.{mark}" not in path.read_text(encoding="utf-8"):
                raise pytest.UsageError(f"{path}: write `pytest.mark.{mark}` in this file.")
