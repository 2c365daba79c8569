"""Kinds of arguments and groups of commands that the command line is made of."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import click

from daemon.home.layout import user_path
from protocol.text.nearest import nearest

RUN_ID = re.compile(r"[0-9a-fA-F]{4,64}")  # or its beginning
SUMMARY_CHARS = 400  # a first sentence is shown whole


class PathArgument(click.ParamType[Path]):
    """A path: absolute, `~` expanded, fit for the system's calls. Says nothing of what is there."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return value if isinstance(value, Path) else user_path(str(value), _named(param))


class NewFileArgument(PathArgument):
    """The path of a file that is written at the end of a long command: what is wrong with it is
    found before the command begins.
    """

    name = "new file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        written = path if path.exists() else path.parent
        if path.is_dir() or not path.parent.is_dir():
            self.fail(
                f"{path} cannot be written: {'it is a directory' if path.is_dir() else f'there is no directory {path.parent}'}.",
                param,
                ctx,
            )
        if not os.access(written, os.W_OK):
            self.fail(f"{path} cannot be written: permission denied.", param, ctx)
        return path


class NamesArgument(click.ParamType[tuple[str, ...]]):
    """Names with commas between them, at least one."""

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
            self.fail("give at least one name, or leave the option out.", param, ctx)
        return names


class FiniteRange(click.FloatRange):
    """A number in a range: "nan", which compares with nothing, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


class LifelineArgument(click.ParamType[int]):
    """The number of an open descriptor."""

    name = "descriptor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            os.fstat(int(value))
        except (ValueError, OSError, OverflowError):
            self.fail(f"{value!r} is no open descriptor of this process.", param, ctx)
        return int(value)


class RunArgument(PathArgument):
    """The path of a run's file, or the beginning of a run's id, which stays as it is unless a file
    has that name.
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


class CommandGroup(click.Group):
    """A group whose help shows every command's first sentence whole, and which suggests a name only
    where one is near.
    """

    def summary(self, context: click.Context, name: str) -> str:
        """The first sentence of a command's help."""
        command = self.get_command(context, name)
        return (
            command.get_short_help_str(SUMMARY_CHARS)
            if command is not None and not command.hidden
            else ""
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, text) for name in self.list_commands(ctx) if (text := self.summary(ctx, name))
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            ctx.fail(
                f"There is no command {args[0][:SUMMARY_CHARS]!r}.{self._suggestion(ctx, args[0])}"
            )
        return super().resolve_command(ctx, args)

    def _suggestion(self, context: click.Context, name: str) -> str:
        flags = {
            option.removeprefix("--"): option
            for parameter in self.get_params(context)
            for option in parameter.opts
        }
        meant = nearest(name, [*self.list_commands(context), *flags])
        return f" Did you mean {flags.get(meant, meant)}?" if meant else ""


def _named(param: click.Parameter | None) -> str:
    """How a person names the parameter: its longest option, or the word in the usage line."""
    if param is None:
        return "the argument"
    return (
        max(param.opts, key=len)
        if isinstance(param, click.Option)
        else param.make_metavar(click.Context(click.Command(None)))
    )
