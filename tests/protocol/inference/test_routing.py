"""Chains of stages, coverage of layers, and the choice of a range."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.inference.coverage import (
    choose_range,
    holders_by_layer,
    missing_layers,
    name_layers,
)
from protocol.inference.layers import LayerRange
from protocol.inference.routing import Holder, NoRoute, Route, find_route

WHOLE = LayerRange(first=0, stop=6)


def layers(first: int, stop: int) -> LayerRange:
    return LayerRange(first=first, stop=stop)


def holder(
    peer: str, first: int, stop: int, rtt_s: float = 0.01, free: int = 1000, kernel: str = "k"
) -> Holder:
    return Holder(
        peer=peer,
        layers=layers(first, stop),
        kernel=kernel,
        rtt_s=rtt_s,
        layer_tokens_per_s=1000,
        cache_tokens_free=free,
    )


def chain(route: Route | NoRoute) -> list[tuple[str, str]]:
    assert isinstance(route, Route)
    return [(hop.peer, str(hop.layers)) for hop in route.hops]


def test_route_prefers_fewer_hops_and_short_round_trips() -> None:
    near = [holder("a", 0, 3), holder("b", 3, 6), holder("c", 0, 3, 0.2), holder("d", 0, 6, 0.2)]
    assert chain(find_route(near, WHOLE, cache_tokens=1)) == [("a", "0:3"), ("b", "3:6")]
    far = [holder("a", 0, 3, 0.3), holder("b", 3, 6, 0.3), holder("d", 0, 6, 0.2)]
    assert chain(find_route(far, WHOLE, cache_tokens=1)) == [("d", "0:6")]


def test_route_takes_a_part_of_a_stage_s_range() -> None:
    overlapping = [holder("a", 0, 4), holder("b", 2, 6)]
    found = chain(find_route(overlapping, WHOLE, cache_tokens=1))
    assert [peer for peer, _ in found] == ["a", "b"]
    assert found[0][1].split(":")[1] == found[1][1].split(":")[0]


def test_route_prefers_ranges_that_two_stages_hold() -> None:
    stages = [holder("a", 0, 6), holder("b", 0, 6, 0.02), holder("c", 0, 3), holder("d", 3, 6)]
    assert chain(find_route(stages, WHOLE, cache_tokens=1)) == [("a", "0:6")]
    alone = [holder("a", 0, 6, 0.03), holder("b", 0, 6, 0.03), holder("c", 0, 6, 0.005)]
    assert find_route(alone[:1], WHOLE, cache_tokens=1).cost_s > 0.03  # type: ignore[union-attr]


def test_route_prefers_the_kernel_that_can_repeat_the_bits() -> None:
    stages = [holder("far", 2, 4, 0.5), holder("near", 2, 4, kernel="other")]
    kernels = {layers(0, 2): "other", layers(2, 4): "k", layers(4, 6): "other"}
    found = find_route(stages, layers(2, 4), cache_tokens=1, kernels=kernels)
    assert chain(found) == [("far", "2:4")]
    only = find_route(stages[1:], layers(2, 4), cache_tokens=1, kernels=kernels)
    assert chain(only) == [("near", "2:4")]


def test_route_avoids_suspects_and_excluded_stages() -> None:
    stages = [holder("a", 0, 6), holder("b", 0, 6, 0.5)]
    assert chain(find_route(stages, WHOLE, cache_tokens=1, suspects={"a": 1})) == [("b", "0:6")]
    assert chain(find_route(stages, WHOLE, cache_tokens=1, excluded={"a"})) == [("b", "0:6")]
    assert chain(find_route(stages[:1], WHOLE, cache_tokens=1, suspects={"a": 3})) == [("a", "0:6")]


def test_no_route_names_missing_layers_or_full_stages() -> None:
    stages = [holder("a", 0, 2), holder("b", 3, 5)]
    assert find_route(stages, WHOLE, cache_tokens=1) == NoRoute(
        missing=(layers(2, 3), layers(5, 6)), full=False
    )
    full = [holder("a", 0, 6, free=5), holder("b", 0, 2, free=50)]
    assert find_route(full, WHOLE, cache_tokens=10) == NoRoute(missing=(layers(2, 6),), full=True)


RANGES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 6)).filter(lambda pair: pair[0] < pair[1]),
    max_size=8,
)


@given(RANGES, st.randoms())
def test_route_exists_exactly_where_all_layers_have_a_holder(
    ranges: list[tuple[int, int]], source: random.Random
) -> None:
    stages = [holder(str(index), *pair, rtt_s=source.random()) for index, pair in enumerate(ranges)]
    found = find_route(stages, WHOLE, cache_tokens=1)
    missing = missing_layers((one.layers for one in stages), WHOLE)
    assert isinstance(found, NoRoute) == bool(missing)
    if isinstance(found, Route):
        assert [hop.layers.first for hop in found.hops] == [
            0,
            *(hop.layers.stop for hop in found.hops[:-1]),
        ]
        assert found.hops[-1].layers.stop == 6
        held = {one.peer: one.layers for one in stages}
        assert all(held[hop.peer].contains(hop.layers) for hop in found.hops)


@pytest.mark.parametrize(
    ("held", "count", "expected"),
    [
        ([0, 0, 0, 0], 2, "0:2"),
        ([1, 1, 0, 0], 2, "2:4"),
        ([1, 0, 1, 1], 2, "0:2"),
        ([2, 2, 1, 2], 1, "2:3"),
        ([1, 1, 1, 1], 4, "0:4"),
    ],
)
def test_choose_range_takes_the_layers_with_the_fewest_holders(
    held: list[int], count: int, expected: str
) -> None:
    assert str(choose_range(held, count)) == expected


def test_stages_that_start_one_after_the_other_cover_a_model_twice() -> None:
    held: list[LayerRange] = []
    for _ in range(6):
        held.append(choose_range(holders_by_layer(held, 9), 3))
    assert holders_by_layer(held, 9) == [2] * 9


def test_name_layers_in_words() -> None:
    assert name_layers([layers(3, 4)]) == "layer 3"
    assert name_layers([layers(3, 5)]) == "layers 3 to 4"
    assert name_layers([layers(0, 1), layers(3, 5), layers(7, 9)]) == "layers 0, 3 to 4 and 7 to 8"
