"""Text in terminal columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli.terminal.columns import MISSING, columns, cut, fitted, output_width, wrapped

TEXTS = st.text(st.sampled_from("ab /日本é\u0301😀"), max_size=80)


def test_columns_of_wide_letters_and_marks() -> None:
    assert columns("ab") == 2
    assert columns("日本") == 4
    assert columns("e\u0301") == 1
    assert columns("😀\ufe0f") == 2


@given(TEXTS, st.integers(1, 40))
def test_cut_takes_at_most_its_columns(text: str, width: int) -> None:
    shown = cut(text, width)
    assert columns(shown) <= width
    assert shown == text or shown.endswith(MISSING)


@given(TEXTS, st.integers(4, 40), st.integers(0, 3))
def test_wrapped_loses_nothing_and_keeps_its_width(text: str, width: int, indent: int) -> None:
    shown = wrapped(text, width, indent)
    assert shown.replace("\n", "").replace(" ", "") == text.replace(" ", "").replace("\n", "")
    for at, line in enumerate(shown.split("\n")):
        own = line.removeprefix(" " * indent) if at else line
        # A word without wide letters stays whole.
        assert columns(own) <= width - indent or " " not in own


def test_wrapped_breaks_words_only_between_wide_letters() -> None:
    assert (
        wrapped("see /a/very/long/path/of/a/file here", 12, 2)
        == "see\n  /a/very/long/path/of/a/file\n  here"
    )
    assert wrapped("日本日本日本", 6, 0) == "日本日\n本日本"


def test_fitted_narrows_the_widest_column() -> None:
    assert fitted([30, 10, 5], 40, 2, 8) == [21, 10, 5]
    assert fitted([30, 10, 5], 10, 2, 8) == [8, 8, 5]
    assert fitted([], 10, 2, 8) == []


@pytest.mark.parametrize(
    ("wanted", "terminal", "width"),
    [
        ("60", False, 60),
        ("20", False, 40),
        ("0", False, None),
        ("wide", False, None),
        ("-5", False, None),
        ("", False, None),
        ("70", True, 70),
    ],
)
def test_output_width(
    wanted: str, terminal: bool, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", wanted)
    assert output_width(terminal=terminal) == width
