"""Genesis is the same bytes everywhere, and has the distribution its specs ask for."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import digest
from protocol.errors import UserError
from protocol.ports.trainer import ParameterSpec
from protocol.run.initial_parameters import initial_parameters

SPECS = (
    ParameterSpec(name="embed", shape=(256, 16), init="uniform", bound=0.05),
    ParameterSpec(name="norm.weight", shape=(16,), init="ones"),
    ParameterSpec(name="norm.bias", shape=(16,), init="zeros"),
    ParameterSpec(name="head", shape=(3, 5, 7), init="uniform", bound=1 / sqrt(35)),
)


def test_golden() -> None:
    """These bytes are part of the protocol: other bytes would change the genesis of every run."""
    flat = initial_parameters(SPECS, 7)
    assert flat.dtype == np.float32
    assert flat.shape == (256 * 16 + 32 + 105,)
    assert (
        digest(flat.tobytes()).hex()
        == "77a24a46b2b45e6f4b5b979dc2770ea25e6782f155c306f7cd6cd08b1750b101"
    )


def test_rules() -> None:
    flat = initial_parameters(SPECS, 7)
    embed, ones, zeros = flat[:4096], flat[4096:4112], flat[4112:4128]
    assert (ones == 1).all()
    assert (zeros == 0).all()
    assert np.abs(embed).max() <= np.float32(0.05)
    assert embed.std() == pytest.approx(0.05 / sqrt(3), rel=0.05)
    assert abs(embed.mean()) < 0.002


def test_seeds_and_places_differ() -> None:
    twice = (SPECS[0], SPECS[0])
    first, second = np.split(initial_parameters(twice, 1), 2)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, initial_parameters(twice[:1], 2))
    assert np.array_equal(first, initial_parameters(twice[:1], 1))


@given(st.integers(0, 2_200_000), st.integers(0, (1 << 63) - 1))
def test_a_longer_tensor_begins_like_a_shorter_one(size: int, seed: int) -> None:
    """The values do not depend on the chunks in which they are computed."""
    # Most sizes are small; some cross the chunk border.
    size = size if size % 10 == 0 else size % 5000
    whole = initial_parameters(
        (ParameterSpec(name="w", shape=(size + 3,), init="uniform", bound=0.1),), seed
    )
    part = initial_parameters(
        (ParameterSpec(name="w", shape=(size,), init="uniform", bound=0.1),), seed
    )
    assert np.array_equal(whole[:size], part)


@pytest.mark.parametrize(
    "spec",
    [
        ParameterSpec(name="w", shape=(2,), init="normal"),
        ParameterSpec(name="w", shape=(2,), init="uniform", bound=-1.0),
    ],
)
def test_unknown_rules_are_refused(spec: ParameterSpec) -> None:
    with pytest.raises(UserError, match="TASK"):
        initial_parameters((spec,), 0)
