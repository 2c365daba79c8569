"""Schedules: the learning rate of a step and the outer rules of a round, by certified samples."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.run.manifest import Inner, Manifest, Outer
from protocol.run.schedule import learning_rate_factor, outer_at

MANIFEST = Manifest(
    name="run",
    task="module:Task",
    outer=Outer(learning_rate=0.7, momentum=0.9, momentum_warmup_samples=1000),
)
COSINE = Inner(batch_size=8, warmup_samples=80, decay="cosine", total_samples=1080)
LINEAR = replace(COSINE, decay="linear")

inners = st.builds(
    Inner,
    batch_size=st.integers(1, 512),
    warmup_samples=st.integers(0, 10_000),
    decay=st.sampled_from(["constant", "linear", "cosine"]),
    final_factor=st.floats(0, 1),
    total_samples=st.integers(10_001, 1 << 40),
)
positions = st.integers(0, 1 << 41)


@pytest.mark.parametrize(
    ("inner", "position", "factor"),
    [
        # The warm-up counts the step's own batch: ten steps of 8 samples.
        (COSINE, 0, 0.1),
        (COSINE, 8, 0.2),
        (COSINE, 72, 1.0),
        (COSINE, 80, 1.0),
        # A quarter, half and three quarters of the way from 1 to 0.1.
        (COSINE, 330, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        (COSINE, 580, 0.55),
        (COSINE, 830, 0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2),
        (COSINE, 1080, 0.1),
        (COSINE, 1 << 40, 0.1),
        (LINEAR, 40, 0.6),
        (LINEAR, 330, 0.775),
        (LINEAR, 580, 0.55),
        (LINEAR, 1080, 0.1),
        (replace(LINEAR, final_factor=0.0), 1080, 0.0),
        (Inner(), 0, 1.0),
        (Inner(), 1 << 40, 1.0),
        (Inner(warmup_samples=16, batch_size=64), 0, 1.0),
    ],
)
def test_golden_values_of_the_learning_rate(inner: Inner, position: int, factor: float) -> None:
    assert learning_rate_factor(inner, position) == pytest.approx(factor, rel=1e-12)


@given(inners, positions)
def test_a_factor_is_between_0_and_1_and_the_first_is_above_0(inner: Inner, position: int) -> None:
    assert 0.0 <= learning_rate_factor(inner, position) <= 1.0
    assert learning_rate_factor(inner, 0) > 0.0


@given(inners, positions, st.integers(0, 1 << 41))
def test_the_rate_rises_in_the_warm_up_and_falls_after_it(inner: Inner, one: int, two: int) -> None:
    early, late = sorted((one, two))
    first, then = learning_rate_factor(inner, early), learning_rate_factor(inner, late)
    if late < inner.warmup_samples:
        assert first <= then
    if early >= inner.warmup_samples:
        assert first >= then
    if late >= inner.total_samples and inner.decay != "constant":
        assert then == pytest.approx(inner.final_factor)


@given(inners)
def test_no_step_at_the_end_of_the_warm_up(inner: Inner) -> None:
    """The rate does not jump where the warm-up meets the decay, beyond one batch of each."""
    if not inner.warmup_samples:
        return
    last = learning_rate_factor(inner, inner.warmup_samples - 1)
    first = learning_rate_factor(inner, inner.warmup_samples)
    assert first == 1.0
    assert last == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("samples", "momentum"), [(0, 0.0), (1, 0.0009), (250, 0.225), (999, 0.8991), (1000, 0.9)]
)
def test_golden_values_of_the_outer_momentum(samples: int, momentum: float) -> None:
    assert outer_at(MANIFEST, samples) == replace(
        MANIFEST.outer, momentum=pytest.approx(momentum, rel=1e-12)
    )


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.floats(0, 0.999))
def test_the_momentum_rises_from_0_to_that_of_the_manifest(
    samples: int, warmup: int, momentum: float
) -> None:
    outer = Outer(momentum=momentum, momentum_warmup_samples=warmup)
    manifest = replace(MANIFEST, outer=outer)
    found = outer_at(manifest, samples)
    assert 0.0 <= found.momentum <= momentum
    assert found.learning_rate == outer.learning_rate
    assert outer_at(manifest, samples + 1).momentum >= found.momentum
    assert outer_at(manifest, warmup) == outer


def test_outer_rules_without_a_warm_up_are_the_manifests_own() -> None:
    manifest = replace(MANIFEST, outer=Outer())
    assert outer_at(manifest, 0) is manifest.outer
