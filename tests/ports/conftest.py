"""The pytest setup of the port suites: rewritten assertions, and tests in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simulator.fakes.clock import run_virtual

# Pytest rewrites the assertions of test files only, and the suites are shared modules.
pytest.register_assert_rewrite(
    *(
        f"tests.ports.{module.stem}"
        for pattern in ("*_suite.py", "*_kit.py")
        for module in sorted(Path(__file__).parent.glob(pattern))
    )
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "virtual_time: runs under a clock that jumps to the next deadline, deterministically",
    )


def in_virtual_time(main: Callable[[], Awaitable[object]], **_settings: object) -> object:
    return run_virtual(main)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put this `run` before the one of pytest-trio's own trio mode: pytest-trio takes the first."""
    for item in items:
        if item.get_closest_marker("virtual_time") and item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=in_virtual_time), append=False)
