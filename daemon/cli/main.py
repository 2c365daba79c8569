"""`hypergpud`: finds the command, runs it, turns how it ended into an exit code. The composition root of every short-lived process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from daemon.cli.invocation import global_options
from protocol.errors import UserError

COMMANDS = {
    "start": "daemon.cli.start",
    "status": "daemon.cli.status",
    "peers": "daemon.cli.status",
    "stop": "daemon.cli.stop",
    "observe": "daemon.cli.observe",
    "demo": "daemon.cli.demo",
    "wallet": "daemon.cli.wallet",
    "rewards": "daemon.cli.rewards",
    "settle": "daemon.cli.settle",
    "sanction": "daemon.cli.sanction",
    "session": "daemon.cli.session",
    "config": "daemon.cli.config",
    "devnet": "daemon.cli.devnet",
    "bench": "simulator.bench.cli",
    "simulate": "simulator.cli",
}
INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended


class LazyGroup(click.Group):
    """Imports the module of a command when that command is asked for: `status` must not pay for `start`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches  # noqa: PLC0415  # only on the way to an error

            near = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"There is no command {args[0]!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from daemon.version import version  # noqa: PLC0415  # 20 ms that only --version pays

        click.echo(f"hypergpud {version()}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@global_options(hidden=False)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print the version.")
def cli() -> None:
    """Train one model on GPUs that belong to many people.

    hypergpud demo shows a whole swarm on this machine; hypergpud start joins one.
    """


def run(arguments: Sequence[str]) -> int:
    """One call, as an exit code: 0 ok, 1 failed, 2 usage or config, 3 daemon not running, 4 doctor, 5 key, 6 chain, 130 interrupted."""
    try:
        ended = cli.main(args=list(arguments), prog_name="hypergpud", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        print(f"hypergpud: {error}", file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`hypergpud status | head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return ended if isinstance(ended, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
