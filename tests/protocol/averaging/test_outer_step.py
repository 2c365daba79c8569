"""The outer step: DiLoCo's Nesterov, in float32, byte for byte the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.outer_step import (
    outer_step,
    outer_step_4,
    state_digest,
    state_leaves,
    step_in_numpy,
)
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES, Vector
from protocol.codec import implementation, loops
from protocol.digest import digest, merkle_root
from protocol.run.manifest import Outer

DILOCO = Outer(learning_rate=0.7, momentum=0.9)
SIZE = 5000
STEPS = 12


def _vectors(seed: int, size: int = SIZE) -> tuple[Vector, Vector, list[Vector]]:
    """Return anchor, momentum and the means of some rounds.

    The values are integers over powers of two, which are the same on every machine.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = [
        (random.integers(-(1 << 20), 1 << 20, size) / 2.0**22).astype(np.float32)
        for _ in range(2 + STEPS)
    ]
    return drawn[0], drawn[1], drawn[2:]


def test_a_mean_of_many_rounds_is_stepped_for_its_last_round_only() -> None:
    """The displacement of many rounds leads to the trained parameters, and no further.

    Only the last round is stepped with rate and momentum.
    """
    anchor, momentum, mean = (np.full(5, value, np.float32) for value in (3.0, 0.5, 2.0))
    out = np.empty((2, 5), np.float32)
    outer_step(
        anchor, momentum, mean, Outer(learning_rate=0.7, momentum=0.9), out[0], out[1], rounds=4.0
    )
    last = np.float32(0.5)
    assert np.allclose(out[1], 0.9 * 0.5 + last)
    assert np.allclose(out[0], 3.0 - 1.5 - 0.7 * (last + 0.9 * (0.9 * 0.5 + last)), rtol=1e-6)
    outer_step(
        anchor,
        momentum,
        mean,
        Outer(learning_rate=1.0, momentum=0.0),
        out[0],
        out[1],
        rounds=1000.0,
    )
    assert np.allclose(out[0], 1.0, rtol=1e-6)


def test_golden_trace() -> None:
    """Twelve rounds end in these bytes, within float32 rounding of the rounds in float64."""
    anchor, momentum, means = _vectors(1)
    rules = Outer(learning_rate=0.7, momentum=0.9)
    exact_anchor, exact_momentum = anchor.astype(np.float64), momentum.astype(np.float64)
    for mean in means:
        next_anchor, next_momentum = np.empty_like(anchor), np.empty_like(momentum)
        outer_step(anchor, momentum, mean, rules, next_anchor, next_momentum)
        exact_momentum = 0.9 * exact_momentum + mean
        exact_anchor = exact_anchor - 0.7 * (mean + 0.9 * exact_momentum)
        anchor, momentum = next_anchor, next_momentum
    assert np.allclose(anchor, exact_anchor, rtol=0, atol=2e-6)
    assert np.allclose(momentum, exact_momentum, rtol=0, atol=2e-6)
    assert (
        digest(anchor.tobytes(), momentum.tobytes()).hex()
        == "46b1ce2f12a90eef96c6a11c7d91ad8988d133a472dcc5e1b42032bb60cf665d"
    )
    assert (
        state_digest(anchor, momentum).hex()
        == "e9688aaff398879563157a19cf491dfc97c555a7826eecec9923977935702744"
    )


def test_the_outer_step_keeps_its_inputs_and_writes_all_outputs() -> None:
    anchor, momentum, (mean, *_) = _vectors(2)
    before = [vector.tobytes() for vector in (anchor, momentum, mean)]
    results = []
    for rubbish in (0.0, np.nan):
        outputs = np.full(SIZE, rubbish, np.float32), np.full(SIZE, rubbish, np.float32)
        outer_step(anchor, momentum, mean, DILOCO, *outputs)
        results.append([output.tobytes() for output in outputs])
    assert results[0] == results[1]
    assert [vector.tobytes() for vector in (anchor, momentum, mean)] == before


def test_the_buffers_may_be_views_of_one() -> None:
    """Shared memory gives views of one mapping, which lie side by side and do not overlap."""
    anchor, momentum, (mean, *_) = _vectors(3)
    apart = np.empty(SIZE, np.float32), np.empty(SIZE, np.float32)
    outer_step(anchor, momentum, mean, DILOCO, *apart)
    block = np.concatenate([anchor, momentum, mean, np.empty(2 * SIZE, np.float32)])
    parts = [block[i * SIZE : (i + 1) * SIZE] for i in range(5)]
    outer_step(parts[0], parts[1], parts[2], DILOCO, parts[3], parts[4])
    assert (parts[3].tobytes(), parts[4].tobytes()) == (apart[0].tobytes(), apart[1].tobytes())


@given(st.integers(0, 1000), st.integers(1, 400), st.integers(0, 400))
def test_the_outer_step_is_elementwise(seed: int, size: int, cut: int) -> None:
    """A part of a vector steps to the same bytes alone and within the vector.

    Vector instructions treat the ends of a vector like its middle.
    """
    anchor, momentum, (mean, *_) = _vectors(seed, size)
    whole = np.empty(size, np.float32), np.empty(size, np.float32)
    outer_step(anchor, momentum, mean, DILOCO, *whole)
    cut %= size
    part = np.empty(size - cut, np.float32), np.empty(size - cut, np.float32)
    outer_step(anchor[cut:].copy(), momentum[cut:].copy(), mean[cut:].copy(), DILOCO, *part)
    assert (whole[0][cut:].tobytes(), whole[1][cut:].tobytes()) == (
        part[0].tobytes(),
        part[1].tobytes(),
    )


def test_without_momentum_it_is_gradient_averaging() -> None:
    anchor, _, (mean, *_) = _vectors(4)
    moved, momentum = np.empty_like(anchor), np.empty_like(anchor)
    outer_step(
        anchor, np.zeros_like(anchor), mean, Outer(learning_rate=1.0, momentum=0.0), moved, momentum
    )
    assert moved.tobytes() == (anchor - mean).tobytes()


@pytest.mark.parametrize("size", [0, 1, STATE_CHUNK_BYTES // 4, STATE_CHUNK_BYTES // 4 + 1])
def test_the_states_digest_covers_every_element_of_both(size: int) -> None:
    anchor, momentum = np.zeros(size, np.float32), np.ones(size, np.float32)
    leaves = state_leaves(anchor, momentum)
    assert len(leaves) == 2 * -(-4 * size // STATE_CHUNK_BYTES)
    assert merkle_root(leaves) == state_digest(anchor, momentum)
    if size:
        assert state_digest(momentum, anchor) != state_digest(anchor, momentum)
        for vector in (anchor, momentum):
            before = state_digest(anchor, momentum)
            vector[-1] = np.nextafter(vector[-1], np.float32(2))
            assert state_digest(anchor, momentum) != before


@given(
    st.integers(0, 1 << 30),
    st.integers(0, 3000),
    st.floats(2**-20, 100, width=32),
    st.floats(0, 0.875, width=32),
)
def test_the_compiled_step_makes_numpys_bytes(seed: int, size: int, rate: float, mu: float) -> None:
    """Compare on magnitudes from 1e-42 to 1e38, and on steps that leave float32's range."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, (3, size), np.uint32)
    anchor, momentum, mean = (bits & np.uint32(0xFEFFFFFF)).view(np.float32)
    outputs = np.empty((4, size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        step_in_numpy(anchor, momentum, mean, Outer(learning_rate=rate, momentum=mu), *outputs[:2])
    outer_step(anchor, momentum, mean, Outer(learning_rate=rate, momentum=mu), *outputs[2:])
    assert outputs[:2].tobytes() == outputs[2:].tobytes()


@pytest.mark.skipif(loops() is None, reason=f"no compiled loops: {implementation()}")
def test_the_compiled_step_is_used_and_numpy_where_it_cannot_walk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anchor, momentum, (mean, *_) = _vectors(4)
    apart, strided = np.empty((2, SIZE), np.float32), np.empty((SIZE, 2), np.float32)
    outer_step(anchor, momentum, mean, DILOCO, strided[:, 0], strided[:, 1])
    monkeypatch.setattr(
        "protocol.averaging.outer_step.step_in_numpy",
        lambda *parts: pytest.fail("numpy did the work"),
    )
    outer_step(anchor, momentum, mean, DILOCO, *apart)
    assert np.array_equal(apart, strided.T)


@pytest.mark.parametrize("rounds", [1.0, 2.5])
def test_a_run_of_rules_4_without_momentum_keeps_a_momentum_of_zeros(rounds: float) -> None:
    """Its anchors are those of rules 3."""
    draw = np.random.default_rng(3)
    anchor, mean = (draw.standard_normal(5000).astype(np.float32) for _ in range(2))
    zeros: Vector = np.zeros(5000, np.float32)
    rules = Outer(learning_rate=0.9, momentum=0.0)
    ours, theirs = np.empty_like(anchor), np.empty_like(anchor)
    kept: Vector = np.full(5000, np.nan, np.float32)
    outer_step_4(anchor, zeros, mean, rules, ours, kept, rounds=rounds)
    outer_step(anchor, zeros, mean, rules, theirs, np.empty_like(zeros), rounds=rounds)
    assert ours.tobytes() == theirs.tobytes()
    assert kept.tobytes() == zeros.tobytes()


def test_a_run_of_rules_4_with_momentum_steps_as_before() -> None:
    draw = np.random.default_rng(4)
    anchor, momentum, mean = (draw.standard_normal(500).astype(np.float32) for _ in range(3))
    for rules in (Outer(momentum=0.9), Outer(momentum=0.0, momentum_warmup_samples=9)):
        ours, theirs = np.empty((2, 500), np.float32), np.empty((2, 500), np.float32)
        outer_step_4(anchor, momentum, mean, rules, ours[0], ours[1])
        outer_step(anchor, momentum, mean, rules, theirs[0], theirs[1])
        assert ours.tobytes() == theirs.tobytes()
