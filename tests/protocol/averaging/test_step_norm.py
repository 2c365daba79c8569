"""The step's length: measured in order, and scaled down where it exceeds three usual ones."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.clip import chunk_energies
from protocol.averaging.step_norm import (
    LEAST_NORMS,
    MOST_NORM,
    MOST_USUAL,
    NORMS_KEPT,
    add_in_order,
    energies,
    limit_step,
    usual_norm,
)
from protocol.averaging.vector_layout import CHUNK_ELEMENTS


@given(
    size=st.integers(1, 3 * CHUNK_ELEMENTS),
    seed=st.integers(0, 999),
    power=st.integers(-45, 37),
    offset=st.booleans(),
)
def test_compiled_energies_are_numpy_s(size: int, seed: int, power: int, offset: bool) -> None:
    random = np.random.default_rng(seed)
    values = (random.uniform(-3, 3, size + offset) * 10.0**power).astype(np.float32)[offset:]
    assert energies(values).tobytes() == chunk_energies(values).tobytes()


def test_energies_of_a_part_are_those_of_the_whole() -> None:
    values = np.random.default_rng(1).standard_normal(5 * CHUNK_ELEMENTS + 9, np.float32)
    at = 2 * CHUNK_ELEMENTS
    whole = add_in_order(0.0, energies(values))
    assert add_in_order(add_in_order(0.0, energies(values[:at])), energies(values[at:])) == whole


def test_usual_norm_is_the_lower_median_of_the_last_steps() -> None:
    assert usual_norm([1.0] * (LEAST_NORMS - 1)) == 0.0
    assert usual_norm([1.0, 0.0] * LEAST_NORMS) == 1.0, "merges do not count"
    assert usual_norm([9.0] * 40 + [1.0] * NORMS_KEPT) == 1.0
    assert usual_norm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == 4.0


@given(energy=st.floats(0, 1e76), usual=st.just(0.0) | st.floats(1e-20, 1e20))
def test_limit_step_scales_down_and_never_up(energy: float, usual: float) -> None:
    factor, norm = limit_step(energy, usual)
    most = MOST_USUAL * usual if usual else MOST_NORM
    assert 0.0 < factor <= 1.0
    assert norm <= most
    assert factor * math.sqrt(energy) <= norm * (1 + 1e-12)
    assert (factor == 1.0) == (math.sqrt(energy) <= most)


def test_a_linear_warmup_is_never_limited() -> None:
    norms: list[float] = []
    for step in range(1, 200):
        factor, norm = limit_step(float(step) ** 2, usual_norm(norms))
        assert factor == 1.0
        norms.append(norm)


def test_everybody_long_together_is_scaled_to_three_usual_norms() -> None:
    """Story trust-all-long-offers: an hour alone, in rounds of a minute."""
    usual = usual_norm([2.0] * 20)
    factor, norm = limit_step((60 * 2.0) ** 2, usual)
    assert norm == 6.0
    assert factor == 6.0 / 120.0


def test_the_longest_mean_leaves_a_finite_state() -> None:
    """Before a usual norm is known, 40 rounds of the longest mean stay within float32."""
    factor, _ = limit_step(float(np.finfo(np.float32).max) ** 2, 0.0)
    assert factor > 0.0
    momentum, anchor = np.zeros(1, np.float32), np.zeros(1, np.float32)
    mean = np.full(1, MOST_NORM, np.float32)
    for _ in range(40):
        momentum = momentum * np.float32(0.99) + mean
        anchor -= np.float32(100.0) * (mean + np.float32(0.99) * momentum)
    assert np.isfinite(anchor).all()
