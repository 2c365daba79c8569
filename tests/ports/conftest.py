"""What the port suites need of pytest: assertions that show their values, and a marker that runs a
test in virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from simulator.fakes.clock import run_virtual

# The suites are shared modules, not test files, which pytest would not rewrite by itself.
pytest.register_assert_rewrite(
    "tests.ports.network_suite",
    "tests.ports.trainer_suite",
    "tests.ports.disk_suite",
    "tests.ports.chain_suite",
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
    """pytest-trio takes the first marker's `run`, and its own trio mode has put one there: ours
    goes before it.
    """
    for item in items:
        if item.get_closest_marker("virtual_time") and item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=in_virtual_time), append=False)
