"""Replaces `daemon.node.app` by `fake_app.py` in child processes.

This works in processes that have this folder on PYTHONPATH.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType


class FakeAppFinder(MetaPathFinder):
    """Finds one module in this folder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "daemon.node.app":
            return None
        return spec_from_file_location(fullname, Path(__file__).with_name("fake_app.py"))


sys.meta_path.insert(0, FakeAppFinder())
