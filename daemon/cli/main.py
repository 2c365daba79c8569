"""`hypergpud`: runs a command and turns its end into an exit code.

This is the composition root of every short-lived process.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from daemon.cli.command_group import RootGroup
from daemon.cli.invocation import COMPLETION, Invocation, global_options, tell
from daemon.cli.terminal.streams import prepare_streams, settle_streams
from daemon.home.layout import is_unicode
from protocol.errors import UserError

# 130 is what a shell reports for a program that SIGINT ended.
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        # 20 ms that only --version pays.
        from daemon.version import version  # noqa: PLC0415

        click.echo(f"hypergpud {version()}")
        context.exit()


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@global_options(hidden=False)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Print the version.",
)
def cli() -> None:
    """Train one model on GPUs that belong to many people.

    hypergpud demo shows a whole swarm on this machine; hypergpud start joins one.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one call and return its exit code.

    0: ok, 1: failed, 2: usage or config, 3: daemon not running, 5: key or wallet, 6: chain,
    130: interrupted.
    """
    for argument in arguments:
        # Python decodes bytes that are not UTF-8 to lone surrogates, which no file of settings,
        # message or JSON can carry.
        if not argument.isascii() and not is_unicode(argument):
            what = f"The argument {argument!a} is not UTF-8 text."
            return _fail(
                UserError(
                    "USAGE",
                    what,
                    fix="type it again, or rename the file that it names",
                    exit_code=USAGE,
                )
            )
    try:
        context = cli.make_context("hypergpud", list(arguments))
    except BaseException as error:  # noqa: BLE001  # the composition root
        return _ended(error, Invocation())
    try:
        with context:
            ended = cli.invoke(context)
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001
        return _ended(error, context.obj if isinstance(context.obj, Invocation) else Invocation())
    return ended if isinstance(ended, int) else 0


def _ended(error: BaseException, invocation: Invocation) -> int:
    """Print the error that ended a command, and return its exit code."""
    match error:
        case UserError():
            return _fail(error)
        case click.exceptions.Exit():
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            tell(error.format_message())
            return USAGE
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "hypergpud"
            return _fail(
                UserError(
                    "USAGE",
                    error.format_message(),
                    fix=f"{command} --help lists its arguments",
                    exit_code=USAGE,
                )
            )
        case click.ClickException():
            return _fail(UserError("USAGE", error.format_message(), exit_code=error.exit_code))
        case click.Abort() | KeyboardInterrupt() | EOFError():
            return INTERRUPTED
        case BrokenPipeError() if _reader_left():
            # As in `hypergpud status | head -1`: a message would only confuse.
            return FAILED
        case Exception() | BaseExceptionGroup():
            # Only a failing command needs this module.
            from daemon.cli.failure import explained, leaves_of  # noqa: PLC0415

            if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves_of(error)):
                return INTERRUPTED
            return _fail(explained(error, _home(invocation), verbose=invocation.verbose))
    raise error


def _reader_left() -> bool:
    """Return whether stdout is a pipe or socket whose other end has closed."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _fail(error: UserError) -> int:
    tell(f"hypergpud: {error}")
    return error.exit_code


def _home(invocation: Invocation) -> Path | None:
    try:
        return invocation.home
    except UserError:
        return None


def _complete(instruction: str) -> int:
    """Answer a shell that completes words.

    See https://click.palletsprojects.com/en/stable/shell-completion/.
    """
    from click.shell_completion import shell_complete  # noqa: PLC0415

    return shell_complete(cli, {}, "hypergpud", COMPLETION, instruction)


def main() -> None:
    """The console script."""
    prepare_streams()
    try:
        code = _complete(wish) if (wish := os.environ.get(COMPLETION)) else run(sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C came between two of the steps above.
        code = INTERRUPTED
    settle_streams()
    if threading.active_count() > 1:
        # Threads of libraries may be in long calls, and Python would wait for each of them. The
        # command has printed its result, so the process ends at once.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
