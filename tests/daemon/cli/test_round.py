"""`hypergpud round`: the text of a story, the list, JSON, and rounds that are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.cli.main import run
from tests.daemon.test_round_story import BEGAN_AT, STARTED, certified, eventful_round, write

GOLDEN = Path(__file__).with_name("round_story.txt")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write(tmp_path / "journal.jsonl", eventful_round())
    return tmp_path


def test_round_shows_a_failed_view_and_a_lost_member(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), "round", "7"]) == 0
    assert capsys.readouterr().out == GOLDEN.read_text(encoding="utf-8")


def test_round_without_a_number_is_the_last_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), "round"]) == 0
    assert "Round 8 of demo (a1b2c3d4)" in capsys.readouterr().out


def test_round_list_has_one_line_for_each_round(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), "round", "--last", "10"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Round 6 of demo (a1b2c3d4), from 2026-11-29 16:00:00 UTC:"
        " certified in view 0, 1,980 samples.",
        "Round 7 of demo (a1b2c3d4), from 2026-11-29 16:00:01 UTC:"
        " certified in view 1 after 1 failed view, 1,980 samples.",
        "Round 8 of demo (a1b2c3d4), from 2026-11-29 16:00:27 UTC: not finished.",
    ]


def test_round_as_json_has_the_views_and_the_certificate(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), "--json", "round", "7"]) == 0
    story = json.loads(capsys.readouterr().out)
    assert [view["failure"] for view in story["views"]] == ["its leader CARO gave up", ""]
    assert story["certificates"][0]["voters"] == ["me", "12D3KooWANNAAAAA"]


def test_round_that_is_not_in_the_journal_says_which_rounds_are(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), "round", "99"]) == 1
    said = capsys.readouterr().err
    assert f"Round 99 is not in {home / 'journal.jsonl'}. [NO_ROUND]" in said
    assert "the journal has the rounds 6 to 8" in said


def test_round_of_an_empty_home_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path), "round"]) == 1
    assert "this node has not begun a round yet" in capsys.readouterr().err


def test_round_of_a_torn_journal_uses_its_readable_part(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (home / "journal.jsonl").open("ab") as file:
        file.write(b'{"type":"PhaseEnt')
    assert run(["--home", str(home), "round", "7"]) == 0
    seen = capsys.readouterr()
    assert seen.out == GOLDEN.read_text(encoding="utf-8")
    assert "Skipped 1 unreadable line of the journal." in seen.err


def test_round_with_a_number_and_a_list_is_a_usage_error(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), "round", "7", "--last", "3"]) == 2
    assert "Give N or --last, not both." in capsys.readouterr().err


def test_round_says_what_caps_and_the_clip_took_from_each_member(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = certified(6)
    mine, theirs = made.shares
    bounds = (replace(mine, weight=540), replace(theirs, weight=900, kept=0.25))
    write(tmp_path / "journal.jsonl", [STARTED, replace(made, at=BEGAN_AT, shares=bounds)])
    assert run(["--home", str(tmp_path), "round", "6"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "540 of 1,080 samples counted; " in shown
    assert ": the clip left 25% of the work" in shown
