"""The round's diagram shows the transition table, and the documentation shows the diagram."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from protocol.round.diagram import BEGIN, END, WORDS, arrows, block, draw
from protocol.round.events import Event
from protocol.round.machine import TABLE
from protocol.round.phase import Phase

PAGE = Path(__file__).parents[3] / "docs" / "internals" / "round.md"


def test_the_diagram_has_exactly_the_arrows_of_the_table() -> None:
    drawn = {
        (phase, event, other) for (phase, other), events in arrows().items() for event in events
    }
    table = {
        (phase, event, other)
        for (phase, event), (_, leads_to) in TABLE.items()
        for other in leads_to
        if other is not phase
    }
    assert drawn == table


def test_every_phase_is_drawn_once_for_each_arrow() -> None:
    lines = draw().splitlines()
    assert lines[0] == "```mermaid"
    assert lines[-1] == "```"
    assert sum("-->" in line for line in lines) == 1 + len(arrows())
    for phase in Phase:
        assert any(f"--> {phase.value}" in line for line in lines), (
            f"nothing leads to {phase.value}"
        )


def test_every_event_has_a_word() -> None:
    assert (
        {event.__name__ for _, event in TABLE}
        <= set(WORDS)
        <= {kind.__name__ for kind in Event.__subclasses__()}
    )


def test_the_documentation_shows_the_current_diagram() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert block() in text, (
        "out of date: put `python -m protocol.round.diagram` between the markers"
    )


def test_the_module_prints_its_diagram() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "protocol.round.diagram"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert printed.stdout == draw() + "\n"
    assert printed.stderr == ""
