"""`hypergpud`: finds the command, runs it, turns how it ended into an exit code.

The composition root of every short-lived process.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import click

from daemon.cli.arguments import CommandGroup
from daemon.cli.invocation import Invocation, global_options, tell
from daemon.cli.terminal.streams import prepare_streams, settle_streams
from daemon.home.layout import is_unicode
from protocol.errors import UserError

COMMANDS = {
    "start": "daemon.cli.commands.start",
    "status": "daemon.cli.commands.status",
    "peers": "daemon.cli.commands.status",
    "stop": "daemon.cli.commands.stop",
    "observe": "daemon.cli.commands.observe",
    "export": "daemon.cli.commands.export",
    "repair": "daemon.cli.commands.repair",
    "demo": "daemon.cli.commands.demo",
    "wallet": "daemon.cli.commands.wallet",
    "rewards": "daemon.cli.commands.rewards",
    "settle": "daemon.cli.commands.settle",
    "sanction": "daemon.cli.commands.sanction",
    "session": "daemon.cli.commands.session",
    "config": "daemon.cli.commands.config",
    "devnet": "daemon.cli.commands.devnet",
    "bench": "simulator.bench.cli",
    "simulate": "simulator.cli",
}
SUMMARIES: Mapping[str, str] = {
    "start": "Run a node in the foreground; its key and config appear on first use.",
    "status": "Verdict first, then this node, its run and its network.",
    "peers": "One line for each peer: path, round-trip time, round, last seen.",
    "stop": "Let the daemon finish its step, write a checkpoint and leave.",
    "observe": "Watch a swarm and serve its status page.",
    "export": "Write a run's newest model to FILE, in the format safetensors.",
    "repair": "Set aside the damaged files of a run; the next start gets them from its members.",
    "demo": "Start daemons and an observer on loopback, watch them train one model, and say how it went.",
    "wallet": "The account that signs for this node, and the address that is paid.",
    "rewards": "What is earned, claimable and claimed.",
    "settle": "For a settler: propose the cumulative root of an epoch, and publish its data set under its hash.",
    "sanction": "For a settler: file an offence of WHO, an account (0x...) or the beginning of a peer id.",
    "session": "A run's session on the chain: created with its manifest's hash, active, then completed with its final certificate or cancelled.",
    "config": "Show or check the settings of this node.",
    "devnet": "Serve a chain of your own for tries: coins that are worth nothing, keys that everybody knows.",
    "bench": "Measure this version on real processes on this machine.",
    "simulate": "Play a scenario (or all) in a simulated world and check that every invariant holds.",
}
"""The first sentence of each command's help: `--help` loads no command for it. A test compares them."""
COMPLETION = "_HYPERGPUD_COMPLETE"
# 130: what a shell reports of a program that SIGINT ended.
FAILED, USAGE, INTERRUPTED = 1, 2, 130


class LazyGroup(CommandGroup):
    """Imports the module of a command when that command is asked for: `status` must not pay for
    `start`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def summary(self, context: click.Context, name: str) -> str:
        return SUMMARIES.get(name) or super().summary(context, name)


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from daemon.version import version  # noqa: PLC0415  # 20 ms that only --version pays

        click.echo(f"hypergpud {version()}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
    """One call, as an exit code: 0 ok, 1 failed, 2 usage or config, 3 daemon not running, 4 doctor,
    5 key, 6 chain, 130 interrupted.
    """
    for argument in arguments:
        # A lone surrogate: bytes that are not UTF-8. No file of settings, message or JSON could
        # carry it.
        if not argument.isascii() and not is_unicode(argument):
            what = f"The argument {argument!a} is not UTF-8 text."
            return _fail(
                UserError(
                    "USAGE", what, fix="type it again, or rename what it names", exit_code=USAGE
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


def _ended(error: BaseException, talk: Invocation) -> int:
    """The composition root of every command: what ends one becomes a sentence and an exit code."""
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
                    fix=f"{command} --help says what it takes",
                    exit_code=USAGE,
                )
            )
        case click.ClickException():
            return _fail(UserError("USAGE", error.format_message(), exit_code=error.exit_code))
        case click.Abort() | KeyboardInterrupt() | EOFError():
            return INTERRUPTED
        case BrokenPipeError() if _reader_left():
            # `hypergpud status | head -1`: nobody needs words.
            return FAILED
        case Exception() | BaseExceptionGroup():
            from daemon.cli.failure import explained, leaves_of  # noqa: PLC0415  # only on the way to an error

            if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves_of(error)):
                return INTERRUPTED
            return _fail(explained(error, _home(talk), verbose=talk.verbose))
    raise error


def _reader_left() -> bool:
    """Whether the other end of a pipe or socket that stdout is has closed."""
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


def _home(talk: Invocation) -> Path | None:
    try:
        return talk.home
    except UserError:
        return None


def _complete(instruction: str) -> int:
    """A shell asks for words to complete
    (https://click.palletsprojects.com/en/stable/shell-completion/).
    """
    from click.shell_completion import shell_complete  # noqa: PLC0415  # for a shell's question alone

    return shell_complete(cli, {}, "hypergpud", COMPLETION, instruction)


def main() -> None:
    """The console script."""
    prepare_streams()
    try:
        code = _complete(wish) if (wish := os.environ.get(COMPLETION)) else run(sys.argv[1:])
    except KeyboardInterrupt:  # between two of the steps above
        code = INTERRUPTED
    settle_streams()
    if threading.active_count() > 1:
        # Threads of libraries may be in calls that take long. What said "Stopped" is gone at once;
        # Python would end them one after the other.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
