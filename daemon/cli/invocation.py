"""What every command is told besides its own options: where the node lives, and how to talk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from daemon.home import home_directory
from protocol.printable import printable

Command = TypeVar("Command", bound=Callable[..., Any])


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """The global options of one call of `hypergpud`."""

    home_flag: str | None = None
    config_flag: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False

    @property
    def home(self) -> Path:
        return home_directory(self.home_flag, os.environ)

    @property
    def config(self) -> Path | None:
        """The config file named by flag or `HYPERGPU_CONFIG`; None for the home's own."""
        named = self.config_flag or os.environ.get("HYPERGPU_CONFIG")
        return Path(named).expanduser().absolute() if named else None

    def color(self, stream: Any) -> bool:
        """Whether to colour what goes to `stream` (https://no-color.org: set and not empty means no)."""
        return not self.no_color and not os.environ.get("NO_COLOR") and stream.isatty()

    def say(self, line: str) -> None:
        """Talk: for the person, not for the next program. When that person has left (a closed terminal, a pipe to `head`) nothing else ends."""
        if not self.quiet:
            with suppress(OSError):
                print(printable(line), file=sys.stderr, flush=True)  # a run's or a peer's words may be in it

    def result(self, text: str) -> None:
        """What was asked for."""
        print(text, flush=True)


def invocation(context: click.Context) -> Invocation:
    """The invocation that a command runs under."""
    found = context.find_root().obj
    return found if isinstance(found, Invocation) else Invocation()


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        context.find_root().obj = msgspec.structs.replace(invocation(context), **{str(parameter.name): value})


_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--config", "config_flag"), {"metavar": "PATH", "help": "Config file instead of the home's config.toml."}),
    (("--home", "home_flag"), {"metavar": "PATH", "help": "Directory with the node's key, config and state."}),
    (("--json", "as_json"), {"is_flag": True, "help": "Print the result as JSON."}),
    (("--quiet", "-q", "quiet"), {"is_flag": True, "help": "Print results and errors alone."}),
    (("--verbose", "-v", "verbose"), {"is_flag": True, "help": "Log more."}),
    (("--no-color", "no_color"), {"is_flag": True, "help": "No colours (also: NO_COLOR)."}),
)


def global_options(*, hidden: bool) -> Callable[[Command], Command]:
    """The global options, understood before the command's name and (there out of the help's way) after it."""

    def add(command: Command) -> Command:
        for names, attributes in reversed(_OPTIONS):
            command = click.option(*names, expose_value=False, callback=_keep, hidden=hidden, **attributes)(command)
        return command

    return add
