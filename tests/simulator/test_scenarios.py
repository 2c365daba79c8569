"""Every named story reaches what it must, with every invariant held."""

from __future__ import annotations

import pytest

from protocol.errors import UserError
from simulator.liars import LIES
from simulator.play import play
from simulator.scenarios import IN_ROWS, NAMED, SCENARIOS, scenario

QUICK_IN_ROWS = [
    name for name in IN_ROWS if "crash" in name or "lost" in name or name in ("rows-calm", "rows-partition", "rows-relay-stopped")
]


def test_of_several_rows_whatever_is_said_of_one_and_more() -> None:
    assert {f"rows-{name}" for name in SCENARIOS} < set(IN_ROWS)
    assert not set(IN_ROWS) & set(SCENARIOS)


@pytest.mark.parametrize("name", [*SCENARIOS, *QUICK_IN_ROWS])
def test_scenario(name: str) -> None:
    _reaches_what_it_must(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(IN_ROWS).difference(QUICK_IN_ROWS)))
def test_scenario_in_rows(name: str) -> None:
    _reaches_what_it_must(name)


def _reaches_what_it_must(name: str) -> None:
    played = play(scenario(name, None, 1))
    assert played.report is not None
    assert played.report.ok, f"{played.report.reason}\n{played.story.text()}"
    assert all(played.report.invariants.values())


def test_a_view_whose_votes_are_divided_ends_when_that_is_clear() -> None:
    """A reducer died while it handed its result out: two voted under the first cut, two under the second, three votes were needed, and all waited
    for the view's deadline."""
    played = play(scenario("rows-crash-member-gather", None, 5))
    assert played.report is not None
    assert played.report.ok, played.report.reason


def test_every_lie_is_refused_by_name_or_says_why_it_is_not() -> None:
    harmless = {"replay"}  # old words at the wrong time: nobody can tell them from late ones, and they change nothing
    assert {kind for kind, lie in LIES.items() if not lie.unnoticed} == set(NAMED) | harmless


def test_a_lying_reducer_is_the_one_thing_that_changes_a_mean() -> None:
    """Written down in ARCHITECTURE: whoever held the contributions would see it, and here the world does."""
    report = play(scenario("liar-wrong_sum", None, 1)).report
    assert report is not None
    assert report.unnoticed > 0
    assert report.invariants["agreement"]


def test_an_unknown_scenario_names_the_known() -> None:
    with pytest.raises(UserError, match="no scenario"):
        scenario("nonsense", None, 1)
