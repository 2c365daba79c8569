"""Many stories, one after the other or in several processes, in the order they were given."""

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

MOST_JOBS = 8  # processes; each takes about 100 MB
STEPS_NEVER_CAME = "steps at which faults were placed never came"

Outcome = tuple[Story, StoryReport]


def jobs_here() -> int:
    """Processes worth having on this machine."""
    return max(1, min(MOST_JOBS, os.cpu_count() or 1))


def play_one(story: Story) -> Outcome:
    """A story and its report."""
    report = play(story).report
    assert report is not None
    return story, report


def play_random(seed: int, nodes: int | None) -> Outcome:
    """The random story of a seed.

    Faults at steps that never came do not count against it, nor that nothing was certified where
    too few honest nodes lived for a certificate.
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
    """The random stories of `count` seeds."""
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
    """The same failure with the fewest faults that still make one of the same invariants fail."""
    broken = {name for name, held in report.invariants.items() if not held}

    def fails(smaller: Story) -> bool:
        after = play_one(smaller)[1]
        return not broken.isdisjoint(name for name, held in after.invariants.items() if not held)

    return play_one(shrink(story, fails))
