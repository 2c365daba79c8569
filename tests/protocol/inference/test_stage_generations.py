"""What a stage does with each request: repeated steps, gaps, attempts, quotas and leases."""

from __future__ import annotations

import itertools

import pytest

from protocol.inference.layers import LayerRange
from protocol.inference.messages import CloseGeneration, OpenGeneration, StepGeneration
from protocol.inference.stage_generations import (
    IDLE_S,
    LEASE_S,
    Compute,
    Held,
    Refusal,
    Repeat,
    Reserve,
    StageGenerations,
    Wait,
)

LAYERS = LayerRange(first=2, stop=6)
NAME = b"n" * 16


@pytest.fixture
def table() -> StageGenerations:
    names = (number.to_bytes(4, "big") for number in itertools.count(1))
    return StageGenerations(LAYERS, 100, 64, lambda: next(names))


def opening(attempt: int = 1, tokens: int = 40, **more: object) -> OpenGeneration:
    fields = {"generation": NAME, "layers": LAYERS, **more}
    return OpenGeneration(
        number=1, attempt=attempt, model=bytes(32), cache_tokens=tokens, wire="float32", **fields
    )


def stepping(position: int, tokens: int = 1, attempt: int = 1) -> StepGeneration:
    return StepGeneration(
        number=1,
        generation=NAME,
        attempt=attempt,
        position=position,
        shapes=(tokens,),
        data=b"",
    )


def open_at(table: StageGenerations, position: int = 0) -> bytes:
    """A generation that holds so many tokens. Returns its cache."""
    reserved = table.open("a", opening(), 0)
    assert isinstance(reserved, Reserve)
    if position:
        assert isinstance(table.step("a", stepping(0, position), 0), Compute)
        table.computed(reserved.cache, b"answer", 0)
    return reserved.cache


def test_step_that_follows_is_computed_and_its_repeat_is_answered(table: StageGenerations) -> None:
    cache = open_at(table)
    assert table.step("a", stepping(0, 7), 0) == Compute(cache=cache, layers=LAYERS, wire="float32")
    assert isinstance(table.step("a", stepping(0, 7), 0), Wait)
    table.computed(cache, b"first", 0)
    assert table.step("a", stepping(0, 7), 0) == Repeat(answer=b"first")
    assert isinstance(table.step("a", stepping(7), 0), Compute)


@pytest.mark.parametrize(("position", "tokens"), [(0, 4), (4, 1), (6, 1), (9, 1), (0, 6)])
def test_step_elsewhere_is_refused_with_the_position_that_follows(
    table: StageGenerations, position: int, tokens: int
) -> None:
    open_at(table, 5)
    refused = table.step("a", stepping(position, tokens), 0)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.expected) == ("position", 5)
    assert isinstance(table.step("a", stepping(5), 0), Compute), "nothing has changed"


def test_other_step_is_refused_while_a_step_is_under_way(table: StageGenerations) -> None:
    open_at(table, 5)
    table.step("a", stepping(5), 0)
    refused = table.step("a", stepping(6), 0)
    assert isinstance(refused, Refusal)
    assert refused.expected == 5


def test_generation_belongs_to_the_peer_that_opened_it(table: StageGenerations) -> None:
    open_at(table, 5)
    refused = table.step("b", stepping(5), 0)
    assert isinstance(refused, Refusal)
    assert refused.reason == "unknown"
    assert isinstance(table.open("b", opening(), 0), Reserve), "a name of its own"


def test_later_attempt_replaces_an_earlier_one(table: StageGenerations) -> None:
    cache = open_at(table, 5)
    assert table.open("a", opening(), 0) == Held(position=5)
    replaced = table.open("a", opening(attempt=2), 0)
    assert isinstance(replaced, Reserve)
    assert replaced.replaced == cache
    for early in (table.step("a", stepping(5), 0), table.open("a", opening(), 0)):
        assert isinstance(early, Refusal)
        assert early.reason == "superseded"
    close = CloseGeneration(number=1, generation=NAME, attempt=1)
    assert table.close("a", close) == b"", "the close of an earlier attempt changes nothing"
    assert isinstance(table.step("a", stepping(0, attempt=2), 0), Compute)


def test_answer_of_a_replaced_attempt_is_dropped(table: StageGenerations) -> None:
    cache = open_at(table)
    table.step("a", stepping(0, 3), 0)
    table.open("a", opening(attempt=2), 0)
    table.computed(cache, b"late", 0)
    assert isinstance(table.step("a", stepping(0, 3, attempt=2), 0), Compute)


def test_quota_is_reserved_at_the_beginning(table: StageGenerations) -> None:
    table.open("a", opening(tokens=60), 0)
    assert table.cache_tokens_free == 40
    refused = table.open("b", opening(tokens=41), 0)
    assert isinstance(refused, Refusal)
    assert refused.reason == "full"
    assert isinstance(table.open("a", opening(attempt=2, tokens=64), 0), Reserve), (
        "its own earlier cache counts as free"
    )
    beyond = table.step("a", stepping(0, 65, attempt=2), 0)
    assert isinstance(beyond, Refusal)
    assert beyond.reason == "malformed"


def test_open_refuses_other_layers_and_more_than_the_context(table: StageGenerations) -> None:
    wrong = table.open("a", opening(layers=LayerRange(first=1, stop=3)), 0)
    assert isinstance(wrong, Refusal)
    assert wrong.reason == "range"
    long = table.open("a", opening(tokens=65), 0)
    assert isinstance(long, Refusal)
    assert long.reason == "malformed"
    assert table.cache_tokens_free == 100


def test_lease_ends_unless_requests_renew_it(table: StageGenerations) -> None:
    cache = open_at(table, 5)
    table.step("a", stepping(5), LEASE_S - 1)
    assert table.expire(3 * LEASE_S) == [], "a step is under way"
    table.computed(cache, b"", 3 * LEASE_S)
    table.open("a", opening(), 4 * LEASE_S - 1)
    assert table.expire(4 * LEASE_S) == []
    assert table.expire(5 * LEASE_S - 1) == [cache]
    assert table.cache_tokens_free == 100
    assert len(table) == 0


def test_failed_cache_is_forgotten(table: StageGenerations) -> None:
    cache = open_at(table, 5)
    table.step("a", stepping(5), 0)
    table.failed(cache)
    refused = table.step("a", stepping(5), 0)
    assert isinstance(refused, Refusal)
    assert refused.reason == "unknown"


def test_lease_is_not_renewed_for_ever_without_a_new_step(table: StageGenerations) -> None:
    cache = open_at(table, 5)
    now = 0.0
    while now + LEASE_S < IDLE_S:
        now += LEASE_S / 2
        # Neither a renewal nor the last step again makes a generation advance.
        assert table.open("a", opening(), now) == Held(position=5)
        assert isinstance(table.step("a", stepping(0, 5), now), Repeat)
    assert table.expire(IDLE_S - 1) == []
    table.open("a", opening(), IDLE_S - 1)
    assert table.expire(IDLE_S) == [cache]


def test_new_step_gives_a_generation_its_whole_time_again(table: StageGenerations) -> None:
    cache = open_at(table, 5)
    table.step("a", stepping(5), LEASE_S - 1)
    table.computed(cache, b"", IDLE_S)
    table.open("a", opening(), IDLE_S + LEASE_S - 1)
    assert table.expire(IDLE_S + LEASE_S) == []
