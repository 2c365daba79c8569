"""Coordinates: estimates of pairs that never met, and one bad sample that changes nothing."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.network.coordinate import (
    FAR_US,
    LEAST_HEIGHT_US,
    ORIGIN,
    WHOLE,
    Coordinate,
    estimate_us,
    moved,
)
from protocol.network.samples import SETTLING, SampleWindow, median

OFFSETS = st.integers(-FAR_US, FAR_US)
PLACES = st.builds(
    Coordinate,
    x_us=OFFSETS,
    y_us=OFFSETS,
    z_us=OFFSETS,
    height_us=st.integers(LEAST_HEIGHT_US, FAR_US),
    error_ppm=st.integers(0, WHOLE),
)


def settle(true_us: list[list[int]], steps: int, seed: int) -> list[Coordinate]:
    """Let nodes measure a few others for `steps` rounds; a third of the pairs never meets."""
    rng, count = Random(seed), len(true_us)
    places = [ORIGIN] * count
    for _ in range(steps):
        for i in rng.sample(range(count), count):
            j = rng.choice([j for j in range(count) if j != i and (i + j) % 3])
            places[i] = moved(
                places[i],
                places[j],
                true_us[i][j],
                bytes([i * 7 % 256, i * 31 % 256, i * 101 % 256]),
            )
    return places


def three_towns() -> list[list[int]]:
    """Return the round trips of ten nodes in each of three towns, with accesses of 2 to 8 ms."""
    way = [[5_000, 90_000, 130_000], [90_000, 5_000, 70_000], [130_000, 70_000, 5_000]]
    access = [2_000 + 600 * (i % 10) for i in range(30)]
    return [[way[i // 10][j // 10] + access[i] + access[j] for j in range(30)] for i in range(30)]


def test_pairs_that_never_met_have_an_estimate() -> None:
    true = three_towns()
    places = settle(true, 400, 1)
    never = [(i, j) for i in range(30) for j in range(i) if (i + j) % 3 == 0]
    wrong = sorted(
        abs(estimate_us(places[i], places[j]) - true[i][j]) / max(true[i][j], 30_000)
        for i, j in never
    )
    assert wrong[len(wrong) // 2] < 0.1
    assert wrong[len(wrong) * 9 // 10] < 0.35
    assert all(place.error_ppm < WHOLE // 4 for place in places)


@given(one=PLACES, other=PLACES)
def test_an_estimate_is_symmetric_and_above_zero(one: Coordinate, other: Coordinate) -> None:
    assert estimate_us(one, other) == estimate_us(other, one) >= 2 * LEAST_HEIGHT_US


@given(
    own=PLACES,
    other=PLACES,
    rtt_us=st.integers(-5, 1 << 40),
    salt=st.binary(min_size=3, max_size=3),
)
def test_any_measurements_leave_a_valid_coordinate(
    own: Coordinate, other: Coordinate, rtt_us: int, salt: bytes
) -> None:
    after = moved(own, other, rtt_us, salt)
    assert max(abs(after.x_us), abs(after.y_us), abs(after.z_us)) <= FAR_US
    assert LEAST_HEIGHT_US <= after.height_us <= FAR_US
    assert 0 <= after.error_ppm <= WHOLE


def test_a_step_reduces_the_error_and_a_sure_node_pulls_harder() -> None:
    own, sure = Coordinate(error_ppm=500_000), Coordinate(x_us=50_000, error_ppm=10_000)
    unsure = replace(sure, error_ppm=900_000)
    for rtt in (10_000, 200_000):
        before = abs(estimate_us(own, sure) - rtt)
        by_sure, by_unsure = (
            abs(estimate_us(moved(own, other, rtt, b"abc"), other) - rtt)
            for other in (sure, unsure)
        )
        assert by_sure < by_unsure < before


def test_nodes_at_one_place_separate() -> None:
    one = moved(ORIGIN, ORIGIN, 50_000, bytes([9, 200, 30]))
    assert one != ORIGIN
    assert (one.x_us, one.y_us, one.z_us) != (0, 0, 0)


@given(true=st.integers(1, 10**6), bad=st.integers(0, FAR_US), at=st.integers(0, 4))
def test_one_bad_sample_changes_nothing(true: int, bad: int, at: int) -> None:
    window = SampleWindow()
    for k in range(5):
        window = window.add(bad if k == at else true)
        assert window.settled == (true if k + 1 >= SETTLING or window.settled is not None else None)
    assert window.spread == 0


def test_three_samples_that_agree_decide() -> None:
    window = SampleWindow(samples=(10, 10, 10, 10, 10))
    seen = []
    for _ in range(3):
        window = window.add(100)
        seen.append(window.settled)
    assert seen == [10, 10, 100]
    assert median([4, 1, 3, 2]) == 2
