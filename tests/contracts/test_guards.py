"""Every guard has a test that fails without it.

`pytest -m slow tests/contracts/test_guards.py` removes each guard and runs its test. A quick test
compares the list with the contracts' sources, and fails if a guard is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.guards import (
    COMPILER,
    REPOSITORY,
    SOURCES,
    TRIAL_S,
    Guard,
    all_guards,
    fails_without,
    guards_in,
    ids_in,
    place_of,
)


@pytest.mark.parametrize("source", sorted(SOURCES.rglob("*.vy")), ids=lambda path: path.stem)
def test_every_guard_of_a_contract_is_in_the_list(source: Path) -> None:
    listed = {(guard.of, guard.guard) for guard in all_guards() if guard.file.endswith(source.name)}
    assert guards_in(source) - listed == set()


def test_every_guard_in_the_list_is_in_its_file() -> None:
    for guard in all_guards():
        place_of(guard, (REPOSITORY / guard.file).read_text())


def test_every_test_in_the_list_exists() -> None:
    named = {guard.test for guard in all_guards() if guard.test}
    assert named - ids_in(sorted({test.partition("::")[0] for test in named})) == set()


@pytest.mark.slow
# The test copies the tree and compiles before the trial.
@pytest.mark.timeout(TRIAL_S + 60)
@pytest.mark.parametrize(
    "guard", [guard for guard in all_guards() if guard.test], ids=lambda guard: guard.name
)
def test_the_test_of_a_guard_fails_without_the_guard(guard: Guard, tmp_path: Path) -> None:
    if guard.is_contract and not COMPILER.exists():
        pytest.skip("the contracts' compiler is not installed; type: make contracts")
    why = fails_without(guard, tmp_path)
    assert not why, f"{guard.name} can be removed without a test noticing: {why}"
