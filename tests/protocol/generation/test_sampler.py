"""Tests of the sampler: counter-based numbers, greedy choice, top-p, and known tokens."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.generation.sampler import SamplingRules, choose_token, uniform_at

LOGITS = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))


def test_choose_token_follows_the_probabilities() -> None:
    rules = SamplingRules(temperature=1.0, top_p=1.0, seed=3)
    drawn = [choose_token(LOGITS, rules, place) for place in range(4000)]
    shares = np.bincount(drawn, minlength=4) / 4000
    # Four standard deviations of a share of a half are 0.03.
    assert np.allclose(shares, [0.5, 0.25, 0.125, 0.125], atol=0.03)


def test_a_place_gives_the_same_token_whatever_was_drawn_before() -> None:
    rules = SamplingRules(temperature=1.0, top_p=1.0, seed=7)
    forward = [choose_token(LOGITS, rules, place) for place in range(64)]
    backward = [choose_token(LOGITS, rules, place) for place in reversed(range(64))]
    assert forward == backward[::-1]
    assert forward != [
        choose_token(LOGITS, SamplingRules(temperature=1.0, top_p=1.0, seed=8), place)
        for place in range(64)
    ]


def test_uniform_at_keeps_its_numbers() -> None:
    """Members that continue a generation need the same numbers in every release."""
    assert [round(uniform_at(7, place), 6) for place in range(3)] == PINNED


PINNED = [0.251751, 0.981073, 0.338692]


def test_no_temperature_takes_the_first_of_the_likeliest() -> None:
    rules = SamplingRules(temperature=0.0)
    assert choose_token(np.array([1.0, 2.0, 2.0], np.float32), rules, 5) == 1


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, {0}), (0.6, {0, 1}), (0.8, {0, 1, 2})])
def test_top_p_keeps_the_likeliest(top_p: float, kept: set[int]) -> None:
    rules = SamplingRules(temperature=1.0, top_p=top_p, seed=1)
    assert {choose_token(LOGITS, rules, place) for place in range(400)} == kept


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose_token(np.array([0.0, np.nan], np.float32), SamplingRules(), 0)
