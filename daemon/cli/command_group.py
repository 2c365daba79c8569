"""Groups of commands: the root with its sections, and plain groups such as `wallet`."""

from __future__ import annotations

import click

from daemon.cli import command_table
from protocol.errors import UserError
from protocol.text.nearest import nearest

# A longer word that is no command is cut in the message.
SHOWN_CHARS = 400


class CommandGroup(click.Group):
    """A group whose help shows the first sentence of each command in full.

    For an unknown name it suggests a command or option that is spelled almost the same.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, command.get_short_help_str(SHOWN_CHARS))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            self.refuse(ctx, args[0])
        return super().resolve_command(ctx, args)

    def refuse(self, context: click.Context, name: str) -> None:
        """Raise the error for a name that is no command."""
        context.fail(f"Unknown command {name[:SHOWN_CHARS]!r}.{self._suggestion(context, name)}")

    def _suggestion(self, context: click.Context, name: str) -> str:
        flags = {
            option.removeprefix("--"): option
            for parameter in self.get_params(context)
            for option in parameter.opts
        }
        meant = nearest(name, [*self.list_commands(context), *flags])
        return f" Did you mean {flags.get(meant, meant)}?" if meant else ""


class RootGroup(CommandGroup):
    """`hypergpud` itself: reads the command table, and imports only the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name for command in command_table.all_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = command_table.find_command(cmd_name)
        return found.load() if found is not None else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = command_table.all_commands()
        longest = max(len(command.name) for command in commands)
        for section in command_table.SECTIONS:
            rows = [
                (command.name.ljust(longest), command.help)
                for command in commands
                if command.section == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)

    def refuse(self, context: click.Context, name: str) -> None:
        if not command_table.plugins().declared:
            raise UserError(
                "INSTALLATION",
                f"Unknown command {name[:SHOWN_CHARS]!r}.",
                why="this installation does not list the commands of all its packages",
                fix="install it again: make setup, or pip install -e . in the source folder",
                exit_code=2,
            )
        super().refuse(context, name)

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete from the table: click's own version imports every command."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415

        names = [
            CompletionItem(command.name, help=command.help)
            for command in command_table.all_commands()
            if command.name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]
