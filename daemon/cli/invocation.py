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

from daemon.home.layout import home_directory, user_path
from protocol.errors import UserError
from protocol.status.figures import clean

Command = TypeVar("Command", bound=Callable[..., Any])
# Of one line of talk: a sentence that repeats what somebody typed or sent has an end.
SHOWN_CHARS = 1000


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
        if self.config_flag is not None:
            return user_path(self.config_flag, "--config")
        named = os.environ.get("HYPERGPU_CONFIG")
        return user_path(named, "HYPERGPU_CONFIG") if named else None

    def color(self, stream: Any) -> bool:
        """Whether to colour what goes to `stream` (https://no-color.org: set and not empty means
        no).
        """
        return not self.no_color and not os.environ.get("NO_COLOR") and is_terminal(stream)

    def say(self, line: str) -> None:
        """Talk: for the person, not for the next program.

        When that person has left (a closed terminal, a pipe to `head`) nothing else ends.
        """
        if not self.quiet:
            tell(line)

    def result(self, text: str) -> None:
        """What was asked for, JSON always as UTF-8.

        Raises `BrokenPipeError` where the reader left, and `UserError("OUTPUT")` where the output
        takes nothing.
        """
        try:
            binary = getattr(sys.stdout, "buffer", None)
            if self.as_json and binary is not None:
                sys.stdout.flush()
                binary.write(text.encode() + b"\n")
                sys.stdout.flush()
            else:
                print(text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error(error) from None


def output_error(error: OSError) -> UserError:
    """`UserError("OUTPUT")`: what was asked for could not be printed."""
    return UserError(
        "OUTPUT",
        "The result could not be written to the standard output.",
        why=error.strerror or str(error),
        fix="send it to a file with space, or to a terminal",
    )


def tell(text: str) -> None:
    """Write to stderr what is for a person, each line without control characters.

    A stderr that takes nothing ends nothing.
    """
    with suppress(OSError):
        print(
            "\n".join(clean(line, SHOWN_CHARS) for line in text.split("\n")),
            file=sys.stderr,
            flush=True,
        )


def is_terminal(stream: Any) -> bool:
    """Whether colours and cursor movements mean something there: a terminal that is not dumb."""
    return (
        stream is not None
        and stream.isatty()
        and os.environ.get("TERM", "dumb") not in ("", "dumb")
    )


def invocation(context: click.Context) -> Invocation:
    """The invocation that a command runs under."""
    found = context.find_root().obj
    return found if isinstance(found, Invocation) else Invocation()


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # An empty path is kept: it is a mistake to report, and no wish for the default.
    if value is not None and value is not False:
        context.find_root().obj = msgspec.structs.replace(
            invocation(context), **{str(parameter.name): value}
        )


_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--config", "config_flag"),
        {"metavar": "PATH", "help": "Config file instead of the home's config.toml."},
    ),
    (
        ("--home", "home_flag"),
        {"metavar": "PATH", "help": "Directory with the node's key, config and state."},
    ),
    (("--json", "as_json"), {"is_flag": True, "help": "Print the result as JSON."}),
    (("--quiet", "-q", "quiet"), {"is_flag": True, "help": "Print only results and errors."}),
    (("--verbose", "-v", "verbose"), {"is_flag": True, "help": "Log more."}),
    (("--no-color", "no_color"), {"is_flag": True, "help": "No colours (also: NO_COLOR)."}),
)


def global_options(*, hidden: bool) -> Callable[[Command], Command]:
    """The global options, understood before the command's name and (there out of the help's way)
    after it.
    """

    def add(command: Command) -> Command:
        for names, attributes in reversed(_OPTIONS):
            command = click.option(
                *names, expose_value=False, callback=_keep, hidden=hidden, **attributes
            )(command)
        return command

    return add
