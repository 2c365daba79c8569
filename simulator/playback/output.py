"""Selects what `hypergpud simulate` plays, and prints the results.

Each run is a line. A failure is followed by the shortest history that shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from protocol.errors import UserError
from simulator.playback import membership
from simulator.playback.plot import plot_report
from simulator.playback.pool import Outcome, jobs_here, play_all, play_fuzz, shortest
from simulator.playback.report import StoryReport
from simulator.scenarios.catalog import IN_GROUPS, SCENARIOS, TABLES, TRUST, scenario
from simulator.scenarios.story import Story, read_story, write_story


def names() -> list[str]:
    """The names of all scenarios, the large ones last."""
    return [*(name for table in TABLES for name in table), membership.NAME]


def outcomes_of(
    name: str | None,
    fuzz: int | None,
    schedule: Path | None,
    nodes: int | None,
    seed: int,
    jobs: int | None,
) -> Iterable[Outcome]:
    """Play a scenario, all scenarios, random schedules, or a story in a file.

    Raises:
        UserError: With code USAGE, unless exactly one of them is given.
    """
    if sum(part is not None for part in (name, fuzz, schedule)) != 1:
        raise UserError(
            "USAGE",
            "Give exactly one of: a scenario's name, all, --fuzz N, --schedule FILE.",
            fix="list the scenarios with `hypergpud simulate --list`",
            exit_code=2,
        )
    count = jobs or jobs_here()
    if fuzz is not None:
        return play_fuzz(seed, fuzz, nodes, count)
    if schedule is not None:
        return play_all([read_story(schedule)], 1)
    if name == membership.NAME:
        return [membership.play_membership(nodes, seed)]
    wanted = [*SCENARIOS, *IN_GROUPS, *TRUST] if name == "all" else [name or ""]
    return play_all([scenario(each, nodes, seed) for each in wanted], count)


def print_outcomes(
    outcomes: Iterable[Outcome], *, as_json: bool, save: Path | None, picture: Path | None
) -> int:
    """Print the results. Returns the exit status."""
    reports: list[StoryReport] = []
    failed: list[Outcome] = []
    last: Story | None = None
    for story, report in outcomes:
        last = story
        reports.append(replace(report, progress=(), alive=()) if as_json else report)
        if not report.ok:
            failed.append((story, report))
        if not as_json:
            click.echo(line(report))
        if picture is not None:
            plot_report(report, story.round.seconds, picture)
    shown = failed[0][0] if failed else last
    if failed and not all(failed[0][1].invariants.values()):
        shown, report = shortest(*failed[0])
        click.echo(
            f"\nThe shortest history that breaks it:\n{shown.text()}\n{report.reason}", err=True
        )
    if save is not None and shown is not None:
        write_story(shown, save)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(reports) + b"\n")
    else:
        click.echo(f"{len(reports) - len(failed)} of {len(reports)} passed")
    return 1 if failed else 0


def line(report: StoryReport) -> str:
    """One run in one line."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    goodput = (
        "-" if report.goodput is None else f"{report.goodput:.3f}/{report.goodput_bound or 1:.3f}"
    )
    text = (
        f"{'ok  ' if report.ok else 'FAIL'} {report.scenario:<28} seed {report.seed:<6} "
        f"{report.nodes:>4} nodes {report.rounds_certified:>4} rounds"
        f"  goodput/bound {goodput:<13} noticed {seconds(report.detection_seconds):>6} s  "
        f"recovered {seconds(report.recovery_seconds):>6} s"
        f" (exchange {seconds(report.recovery_exchange_seconds):>5})  "
        f"{report.real_seconds:.1f} s ({report.cpu_seconds:.1f} s CPU)"
    )
    return text if report.ok else f"{text}\n     {report.reason}"
