"""The live view of the demo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from daemon.demo.swarm_view import SPARKS, live_view, sparkline
from protocol.status import Status, StatusState, status_at
from tests.story import AT, day, folded


def shown(statuses: dict[str, Status | None], width: int = 110) -> str:
    """What a terminal of `width` columns shows."""
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(live_view(statuses, note="Page: http://127.0.0.1:8765/"))
    return capture.get()


def test_live_view_shows_rounds_loss_speed_and_members() -> None:
    text = shown(
        {
            "peer-1": status_at(folded(day()), AT),
            "peer-2": None,
            "observer": status_at(folded(day("observer")), AT),
        }
    )
    for words in (
        "round 6",
        "5.950 → 5.700",
        "8 samples/s",
        "peer-1",
        "not answering",
        "observing",
        "4 of 6",
        "Page: http://127.0.0.1:8765/",
    ):
        assert words in text
    lines = [line for line in text.splitlines() if line.split()[1:2] in (["6"], ["4"])]
    # Round 4 was lost for peer-1.
    assert ["●" in line for line in lines] == [True, False]
    assert "○" in lines[1]
    assert "try 1 ended without a certificate" in text


def test_live_view_before_a_daemon_answers() -> None:
    assert "Starting 4 daemons" in shown({f"peer-{i}": None for i in range(4)})
    assert "round 0" in shown({"peer-1": status_at(StatusState(), AT)})


@pytest.mark.parametrize("width", [40, 80, 200])
def test_live_view_fits_any_width(width: int) -> None:
    status = status_at(folded(day()), AT)
    assert all(
        len(line) <= width
        for line in shown({f"peer-{i}": status for i in range(8)}, width).splitlines()
    )


@given(st.lists(st.floats(-1e9, 1e9), max_size=200), st.integers(1, 60))
def test_sparkline_keeps_its_ends(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set(SPARKS)
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
