"""Entry points are read from the metadata file, and equal what importlib.metadata finds."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from daemon.cli.entry_points import entry_points

TEXT = """
[console_scripts]
program = some.module:main

[hypergpu.commands]
# a comment
one = first.package : COMMANDS
two=second.package:COMMANDS
"""


def test_entry_points_of_this_distribution_are_those_of_importlib() -> None:
    for group in ("console_scripts", "hypergpu.commands"):
        found = metadata.distribution("hypergpu").entry_points.select(group=group)
        assert set(entry_points("hypergpu", group)) == {point.value for point in found}


def test_entry_points_of_a_file_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "example-1.0.dist-info"
    folder.mkdir()
    (folder / "entry_points.txt").write_text(TEXT)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path)])
    assert entry_points("example", "console_scripts") == ("some.module:main",)
    assert entry_points("example", "hypergpu.commands") == (
        "first.package:COMMANDS",
        "second.package:COMMANDS",
    )
    assert entry_points("example", "other.group") == ()


def test_entry_points_of_a_distribution_that_is_not_installed() -> None:
    assert entry_points("no-such-distribution", "hypergpu.commands") == ()
