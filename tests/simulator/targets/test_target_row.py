"""The rows of `bench targets`, and their table."""

from __future__ import annotations

from msgspec.structs import replace

from simulator.bench.targets.many_nodes import MANY, exchange_story, scaling_row
from simulator.bench.targets.target_row import Target, measured, table, unmeasured
from simulator.playback.player import play

BELOW = Target(name="aggregation", wanted="below", limit=1.0, unit="s")
ABOVE = Target(name="training", wanted="above", limit=1000.0, unit="samples/s")


def test_target_is_reached_on_its_own_side_of_the_limit() -> None:
    assert BELOW.reached_by(0.99)
    assert not BELOW.reached_by(1.0)
    assert ABOVE.reached_by(1000.1)
    assert not ABOVE.reached_by(1000.0)
    assert not BELOW.reached_by(float("nan"))


def test_table_shows_value_limit_and_verdict_of_each_row() -> None:
    rows = [
        measured(BELOW, 0.5, "one way"),
        measured(ABOVE, 342.0, "another way"),
        unmeasured(BELOW, "a peer died"),
    ]
    assert [row.passed for row in rows] == [True, False, False]
    assert table(rows).splitlines()[1:] == [
        "aggregation  0.5 s          below 1 s              pass  one way",
        "training     342 samples/s  above 1,000 samples/s  FAIL  another way",
        "aggregation  -              below 1 s              FAIL  not measured: a peer died",
    ]


def test_scaling_row_compares_the_exchanges_of_two_worlds() -> None:
    few = play(exchange_story(4)).report
    assert few is not None
    assert few.ok
    assert few.exchange_seconds
    many = replace(few, nodes=MANY, exchange_seconds=11 * few.exchange_seconds)
    row = scaling_row(few, many)
    assert row.value is not None
    assert abs(row.value - 11.0) < 1e-9
    assert not row.passed
    assert scaling_row(few, replace(many, exchange_seconds=few.exchange_seconds)).passed


def test_scaling_row_fails_with_the_reason_of_a_failed_world() -> None:
    few = play(exchange_story(4)).report
    assert few is not None
    broken = scaling_row(few, replace(few, ok=False, reason="the anchors differ"))
    assert not broken.passed
    assert broken.value is None
    assert "the anchors differ" in broken.how
    assert not scaling_row(few, replace(few, exchange_seconds=None)).passed
