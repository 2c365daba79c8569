"""The commands of `hypergpud`, in the order of `--help`.

To add a command:

1. Write `daemon/cli/commands/NAME.py` with a click command `NAME`; `stop.py` is a short example.
2. Add a `Command` to `COMMANDS`: the help is one sentence of at most 66 characters.
3. Begin the docstring of the click command with the same sentence (a test compares the two).
4. Print results with `Invocation.result` and everything else with `Invocation.say`.
5. Raise `UserError` for what the user can correct; `main.py` turns it into text and an exit code.

Another package of this installation adds commands without being named here. It declares an entry
point in the group `hypergpu.commands` whose value is a tuple of `Command`, as `simulator` does.
This module imports no command, so that `--help` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Literal

import click
import msgspec

from daemon.cli.entry_points import entry_points

PLUGIN_GROUP = "hypergpu.commands"
DISTRIBUTION = "hypergpu"

Section = Literal["Run a node", "See what happens", "Earn", "Own a run", "Develop"]
SECTIONS: tuple[Section, ...] = (
    "Run a node",
    "See what happens",
    "Earn",
    "Own a run",
    "Develop",
)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command: `module` defines a click command called `name`."""

    name: str
    module: str
    section: Section
    help: str

    def load(self) -> click.Command:
        """Import the module and return its click command."""
        command = getattr(import_module(self.module), self.name)
        assert isinstance(command, click.Command)
        return command


def _own(name: str, section: Section, help: str, module: str = "") -> Command:
    return Command(
        name=name, module=f"daemon.cli.commands.{module or name}", section=section, help=help
    )


COMMANDS: tuple[Command, ...] = (
    _own("start", "Run a node", "Run a node in the foreground; the first start makes its key."),
    _own("stop", "Run a node", "Stop the node after its step and a checkpoint."),
    _own("pause", "Run a node", "Pause training; the node stays in its run.", "pause"),
    _own("resume", "Run a node", "Train again after a pause.", "pause"),
    _own("finish", "Run a node", "Stop the node once its round is certified."),
    _own("service", "Run a node", "Run this node under systemd, from the boot or the login on."),
    _own("config", "Run a node", "Show, change or check the settings of this node."),
    _own("repair", "Run a node", "Set damaged files of a run aside, to be fetched again."),
    _own("export", "Run a node", "Write the newest model of a run to a file."),
    _own("evaluate", "Run a node", "Score the newest model of a run on held-out data."),
    _own("sample", "Run a node", "Show what the newest model of a run writes or predicts."),
    _own("serve", "Run a node", "Serve layers of a model to others, as one stage of a pipeline."),
    _own("generate", "Run a node", "Continue a prompt with the stages of a swarm."),
    _own("api", "Run a node", "Answer programs that speak OpenAI's protocol, over HTTP."),
    _own("status", "See what happens", "Show the verdict, this node, its run and its network."),
    _own(
        "peers", "See what happens", "List the peers: path, round trip, round, last seen.", "status"
    ),
    _own(
        "doctor", "See what happens", "Find what keeps this node from working, and say what to do."
    ),
    _own("round", "See what happens", "Tell how a round went: phases, lost members, certificate."),
    _own(
        "bugreport",
        "See what happens",
        "Pack log, journal, settings and findings for a bug report.",
    ),
    _own("logs", "See what happens", "Show the log of this node; -f follows it."),
    _own("observe", "See what happens", "Serve the status page of a swarm, without training."),
    _own("demo", "See what happens", "Run a whole swarm on this machine and report the result."),
    _own("wallet", "Earn", "Manage the account that signs for this node, and its payout."),
    _own("rewards", "Earn", "Show, verify and claim what this node earned."),
    _own("invite", "Own a run", "Print the line with which a friend joins your run."),
    _own("revoke", "Own a run", "Take a peer, or an invitation, out of your run for good."),
    _own("session", "Own a run", "Create, activate, complete or cancel a run on the chain."),
    _own("run", "Own a run", "Pause or stop a run, take it back, or choose a branch."),
    _own("settle", "Own a run", "Propose the reward root of an epoch (for settlers)."),
    _own("sanction", "Own a run", "File an offence for the next settlement (for settlers)."),
    _own("task", "Develop", "Check a task before a run."),
    _own("model", "Develop", "Fetch and list pretrained models."),
    _own("completion", "Develop", "Print a script that completes words in bash, zsh or fish."),
    _own("devnet", "Develop", "Run a local test chain (worthless coins, public keys)."),
)


class Plugins(msgspec.Struct, frozen=True, kw_only=True):
    """Commands of other packages.

    `declared` is False where the installed metadata has no such entry points at all: the
    installation is older than the code, or the code runs without being installed.
    """

    commands: tuple[Command, ...]
    declared: bool


def plugins() -> Plugins:
    """Read the commands that the entry points of this distribution name."""
    found = entry_points(DISTRIBUTION, PLUGIN_GROUP)
    commands: list[Command] = []
    for value in found:
        module, _, attribute = value.partition(":")
        commands += getattr(import_module(module), attribute)
    return Plugins(commands=tuple(commands), declared=bool(found))


def find_command(name: str) -> Command | None:
    """Return the command called `name`; None where no package has one."""
    own = next((command for command in COMMANDS if command.name == name), None)
    if own is not None:
        return own
    more = plugins()
    return next((command for command in more.commands if command.name == name), None)


def all_commands() -> tuple[Command, ...]:
    """Our own commands and those of plugins, by section."""
    every = (*COMMANDS, *plugins().commands)
    return tuple(command for section in SECTIONS for command in every if command.section == section)
