"""The pytest setup of these tests: every test here runs in virtual time unless it is real."""

from __future__ import annotations

import pytest

from tests.ports.conftest import in_virtual_time


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put this `run` before the one of pytest-trio's own trio mode: pytest-trio takes the first."""
    for item in items:
        mine = "daemon/inference" in item.path.as_posix()
        if mine and item.get_closest_marker("trio") and not item.get_closest_marker("real"):
            item.add_marker(pytest.mark.trio(run=in_virtual_time), append=False)
