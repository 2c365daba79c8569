"""No sequence of calls pays too much or too little."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from tests.contracts.pool_machine import Pool


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Pool,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


def test_no_sequence_pays_too_much_or_too_little() -> None:
    play(4, 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_long_sequence_pays_too_much_or_too_little() -> None:
    play(40, 40)
