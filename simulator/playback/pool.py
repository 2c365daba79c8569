"""Plays many stories, in order or in several processes. Results keep the order of the stories."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from msgspec.structs import replace

from simulator.playback.player import play
from simulator.playback.report import StoryReport
from simulator.scenarios.fuzz import random_story, shrink
from simulator.scenarios.story import Story

# Each process needs about 100 MB.
MOST_JOBS = 8
Outcome = tuple[Story, StoryReport]


def jobs_here() -> int:
    """How many processes are worth starting on this machine."""
    return max(1, min(MOST_JOBS, os.cpu_count() or 1))


def play_one(story: Story) -> Outcome:
    """Play a story."""
    report = play(story).report
    assert report is not None
    return story, report


def play_random(seed: int, nodes: int | None) -> Outcome:
    """Play the random story of a seed.

    Faults at steps that never came do not count against it. Nor does a lack of certificates where
    too few honest nodes lived for one.
    """
    story, report = play_one(random_story(seed, nodes))
    if (
        not report.ok
        and all(report.invariants.values())
        and (report.rounds_certified or report.excuse)
    ):
        report = replace(report, ok=True, reason="")
    return story, report


def play_all(stories: Sequence[Story], jobs: int) -> Iterator[Outcome]:
    return _spread(play_one, stories, jobs)


def play_fuzz(first: int, count: int, nodes: int | None, jobs: int) -> Iterator[Outcome]:
    """Play the random stories of `count` seeds."""
    yield from _spread(partial(play_random, nodes=nodes), range(first, first + count), jobs)


def _spread(
    work: Callable[[object], Outcome] | Callable[[Story], Outcome] | partial[Outcome],
    items: Sequence[object],
    jobs: int,
) -> Iterator[Outcome]:
    if jobs == 1 or len(items) == 1:
        yield from map(work, items)  # type: ignore[arg-type]
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, items)


def shortest(story: Story, report: StoryReport) -> Outcome:
    """The same failure with the fewest faults that still break one of the same invariants."""
    broken = {name for name, held in report.invariants.items() if not held}

    def fails(smaller: Story) -> bool:
        after = play_one(smaller)[1]
        return not broken.isdisjoint(name for name, held in after.invariants.items() if not held)

    return play_one(shrink(story, fails))
