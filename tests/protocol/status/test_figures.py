"""What a stranger's text looks like once it is fit to show."""

from __future__ import annotations

import pytest

from protocol.status.figures import clean, clean_lines


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("two\nlines\tand é", "two\nlines\tand é"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("over\rwritten", "over written"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("", ""),
    ],
)
def test_clean_lines_keeps_lines_and_drops_escapes(given: str, shown: str) -> None:
    assert clean_lines(given) == shown


def test_clean_makes_one_line_of_at_most_so_many_characters() -> None:
    assert clean("a\nb\x1b", 10) == "a b\ufffd"
    assert clean("abcdef", 4) == "abc…"
