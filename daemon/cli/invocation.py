"""The global options of a call, and how a command prints results and messages."""

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
# A message may repeat what a user typed or a peer sent; each of its lines is cut here.
SHOWN_CHARS = 1000
# The variable by which a shell asks for the completions of a word.
COMPLETION = "_HYPERGPUD_COMPLETE"


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
        """The config file that `--config` or `HYPERGPU_CONFIG` names; None for the home's."""
        if self.config_flag is not None:
            return user_path(self.config_flag, "--config")
        named = os.environ.get("HYPERGPU_CONFIG")
        return user_path(named, "HYPERGPU_CONFIG") if named else None

    def color(self, stream: Any) -> bool:
        """Return whether to print colours to `stream`.

        See https://no-color.org: `NO_COLOR` that is set and not empty means no.
        """
        return not self.no_color and not os.environ.get("NO_COLOR") and is_terminal(stream)

    def say(self, line: str) -> None:
        """Print a message for a person to stderr, unless `--quiet`.

        A closed terminal or pipe does not end the command.
        """
        if not self.quiet:
            tell(line)

    def result(self, text: str) -> None:
        """Print the result to stdout; JSON is always UTF-8.

        Raises `BrokenPipeError` where the reader has closed the pipe, and `UserError("OUTPUT")`
        where stdout refuses the write.
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
    """Return the error for a result that stdout refused."""
    return UserError(
        "OUTPUT",
        "Cannot write the result to the standard output.",
        why=error.strerror or str(error),
        fix="send it to a terminal, or to a file on a disk with free space",
    )


def tell(text: str) -> None:
    """Print to stderr, without control characters; a stderr that fails is ignored."""
    with suppress(OSError):
        print(
            "\n".join(clean(line, SHOWN_CHARS) for line in text.split("\n")),
            file=sys.stderr,
            flush=True,
        )


def is_terminal(stream: Any) -> bool:
    """Return whether `stream` is a terminal that understands colours and cursor movements."""
    return (
        stream is not None
        and stream.isatty()
        and os.environ.get("TERM", "dumb") not in ("", "dumb")
    )


def invocation_of(context: click.Context) -> Invocation:
    """Return the global options of the call that runs this command."""
    found = context.find_root().obj
    return found if isinstance(found, Invocation) else Invocation()


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # An empty path is kept, since it is a mistake to report and not a wish for the default.
    if value is not None and value is not False:
        context.find_root().obj = msgspec.structs.replace(
            invocation_of(context), **{str(parameter.name): value}
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
    """Add the global options to a command.

    They are understood before the command's name, and after it with `hidden` help.
    """

    def add(command: Command) -> Command:
        for names, attributes in reversed(_OPTIONS):
            command = click.option(
                *names, expose_value=False, callback=_keep, hidden=hidden, **attributes
            )(command)
        return command

    return add
