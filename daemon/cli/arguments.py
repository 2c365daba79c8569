"""Types of command-line arguments."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import click

from daemon.home.layout import user_path

# A run's id in hex, or its beginning.
RUN_ID = re.compile(r"[0-9a-fA-F]{4,64}")


class PathArgument(click.ParamType[Path]):
    """A path: absolute, with `~` expanded. It does not check that a file exists."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return value if isinstance(value, Path) else user_path(str(value), _named(param))


class NewFileArgument(PathArgument):
    """The path of a file to write.

    A long command writes the file at its end, so this type checks the path at the start.
    """

    name = "new file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        written = path if path.exists() else path.parent
        if path.is_dir() or not path.parent.is_dir():
            why = "it is a directory" if path.is_dir() else f"{path.parent} is not a directory"
            self.fail(f"Cannot write {path}: {why}.", param, ctx)
        if not os.access(written, os.W_OK):
            self.fail(f"Cannot write {path}: permission denied.", param, ctx)
        return path


class NamesArgument(click.ParamType[tuple[str, ...]]):
    """One or more names, separated by commas."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = (
            value
            if isinstance(value, tuple)
            else tuple(part.strip() for part in str(value).split(",") if part.strip())
        )
        if not names:
            self.fail("Give at least one name, or leave the option out.", param, ctx)
        return names


class FiniteRange(click.FloatRange):
    """A number in a range. It refuses "nan", which passes every comparison of a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class LifelineArgument(click.ParamType[int]):
    """The number of an open file descriptor."""

    name = "descriptor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            os.fstat(int(value))
        except (ValueError, OSError, OverflowError):
            self.fail(f"{value!r} is not an open file descriptor.", param, ctx)
        return int(value)


class RunArgument(PathArgument):
    """The path of a run's file, or the beginning of a run's id.

    A word that can be an id is an id, unless a file of that name exists.
    """

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if isinstance(value, str) and RUN_ID.fullmatch(value) and not Path(value).exists():
            return Path(value)
        return super().convert(value, param, ctx)


PATH = PathArgument()
RUN = RunArgument()
NEW_FILE = NewFileArgument()
NAMES = NamesArgument()
LIFELINE = LifelineArgument()
PORT = click.IntRange(0, 65535)


def _named(param: click.Parameter | None) -> str:
    """The parameter's name in messages: its longest option, or the word in the usage line."""
    if param is None:
        return "the argument"
    return (
        max(param.opts, key=len)
        if isinstance(param, click.Option)
        else param.make_metavar(click.Context(click.Command(None)))
    )
