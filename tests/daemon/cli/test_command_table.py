"""The command table: complete help lines, plugins, and old installations."""

from __future__ import annotations

import click
import pytest

from daemon.cli import command_table
from daemon.cli.command_table import COMMANDS, SECTIONS, Command, Plugins, all_commands
from daemon.cli.main import cli, run

# In 80 columns click indents by 2, and puts 2 columns after the longest name.
HELP_COLUMNS = 78 - 2 - 2 - max(len(command.name) for command in all_commands())


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: command.name)
def test_command_help_is_the_first_sentence_of_its_docstring(command: Command) -> None:
    loaded = command.load()
    assert loaded.get_short_help_str(400) == command.help
    assert len(command.help) <= HELP_COLUMNS


def test_help_shows_each_command_on_one_line_in_its_section(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for section in SECTIONS:
        part = shown.partition(f"\n{section}:\n")[2].partition("\n\n")[0]
        rows = [line.split(maxsplit=1) for line in part.strip().splitlines()]
        wanted = [[each.name, each.help] for each in all_commands() if each.section == section]
        assert rows == wanted


def test_command_names_are_unique() -> None:
    names = [command.name for command in all_commands()]
    assert len(names) == len(set(names))


def test_plugins_of_this_distribution_add_the_simulator() -> None:
    found = command_table.plugins()
    assert found.declared
    assert {"simulate", "bench"} <= {command.name for command in found.commands}


def test_own_command_is_found_without_reading_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(command_table, "plugins")
    assert command_table.find_command("status") is not None


def test_unknown_command_in_an_old_installation_says_to_install_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_table, "plugins", lambda: Plugins(commands=(), declared=False))
    assert run(["simulate", "calm"]) == 2
    said = capsys.readouterr().err
    assert "Unknown command 'simulate'. [INSTALLATION]" in said
    assert "pip install -e ." in said


def test_completion_of_a_name_loads_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "load", None)
    items = cli.shell_complete(click.Context(cli), "st")
    assert [item.value for item in items] == ["start", "stop", "status"]


def test_own_commands_are_modules_of_the_commands_folder() -> None:
    assert all(command.module.startswith("daemon.cli.commands.") for command in COMMANDS)
