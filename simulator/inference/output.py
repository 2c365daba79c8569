"""Plays stories of serving for `hypergpud simulate --inference`, and prints the outcomes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from daemon.cli.invocation import Invocation
from protocol.errors import UserError
from protocol.text.nearest import nearest
from simulator.fakes.clock import run_virtual
from simulator.inference.stories import STORIES, random_faults
from simulator.inference.story import Act, InferenceReport, play_story

RANDOM = "random-faults"


def names() -> list[str]:
    """The names of all stories."""
    return list(STORIES)


def play(invocation: Invocation, name: str | None, fuzz: int | None, seed: int) -> int:
    """Play one story, all, or `fuzz` random ones. Returns the exit status.

    Raises `UserError`: "SCENARIO" for an unknown name.
    """
    reports: list[InferenceReport] = []
    for story, act, chosen in _wanted(name, fuzz, seed):
        began_s = time.perf_counter()
        reports.append(run_virtual(play_story, story, chosen, act, seed=chosen))
        if not invocation.as_json:
            invocation.result(_line(reports[-1], time.perf_counter() - began_s))
    passed = sum(report.ok for report in reports)
    if invocation.as_json:
        invocation.result(msgspec.json.encode(reports).decode())
    else:
        invocation.result(f"{passed} of {len(reports)} passed")
    return 0 if passed == len(reports) else 1


def _wanted(name: str | None, fuzz: int | None, seed: int) -> Iterator[tuple[str, Act, int]]:
    if fuzz is not None:
        yield from ((RANDOM, random_faults, seed + index) for index in range(fuzz))
        return
    if name not in (None, "all", *STORIES):
        close = nearest(name or "", STORIES)
        raise UserError(
            "SCENARIO",
            f"There is no story of serving {name!r}.",
            why=f"the stories are {', '.join(STORIES)}",
            fix=f"hypergpud simulate --inference {close or 'calm'}",
            exit_code=2,
        )
    for story in STORIES if name in (None, "all") else (name or "",):
        yield story, STORIES[story], seed


def _line(report: InferenceReport, real_s: float) -> str:
    losses = ", ".join(report.losses) or "none"
    text = (
        f"{'ok  ' if report.ok else 'FAIL'} {report.story:<20} seed {report.seed:<6}"
        f" {report.tokens:>4} tokens {report.replays:>2} replays  longest gap {report.gap_s:5.2f} s"
        f"  losses {losses}  ({real_s:.1f} s)"
    )
    return text if report.ok else f"{text}\n     {report.failure}"
