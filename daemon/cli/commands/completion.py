"""`completion`: prints the script by which a shell completes words of `hypergpud`."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from daemon.cli.invocation import COMPLETION, global_options, invocation_of
from protocol.errors import UserError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@global_options(hidden=True)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print a script that completes words in bash, zsh or fish.

    \b
    bash: hypergpud completion bash > ~/.local/share/bash-completion/completions/hypergpud
    zsh:  hypergpud completion zsh > "${fpath[1]}/_hypergpud"
    fish: hypergpud completion fish > ~/.config/fish/completions/hypergpud.fish

    Without an argument, the shell is the one that the variable SHELL names.
    """
    found = get_completion_class(shell or _shell_of_user())
    assert found is not None
    root = context.find_root().command
    invocation_of(context).result(found(root, {}, "hypergpud", COMPLETION).source().strip())


def _shell_of_user() -> str:
    name = PurePath(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UserError(
            "SHELL",
            "Cannot tell which shell to complete for.",
            why=f"the variable SHELL names {name!r}" if name else "the variable SHELL is not set",
            fix=f"hypergpud completion {SHELLS[0]} (or {', '.join(SHELLS[1:])})",
            exit_code=2,
        )
    return name
