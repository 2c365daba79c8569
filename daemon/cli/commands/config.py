"""`config show` and `config check`: the settings in force, and where each value comes from."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.config.loader import load_config
from daemon.config.settings import SECTIONS, Config, keys, toml_value


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def config() -> None:
    """Show or check the settings of this node."""


@config.command()
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@global_options(hidden=True)
@click.pass_context
def show(context: click.Context, origin: bool) -> None:
    """Print every setting in force, as TOML (or JSON)."""
    invocation = invocation_of(context)
    settings, origins = _load(invocation)
    if invocation.as_json:
        invocation.result(_as_json(invocation, settings, origins, origin))
        return
    lines = [f"# home: {settings.home}"]
    current = ""
    for section, key, _ in keys():
        if section != current:
            lines += ["", f"[{section}]"]
            current = section
        line = f"{key} = {toml_value(getattr(getattr(settings, section), key))}"
        lines.append(f"{line}  # {origins[f'{section}.{key}']}" if origin else line)
    invocation.result("\n".join(lines))


@config.command()
@global_options(hidden=True)
@click.pass_context
def check(context: click.Context) -> None:
    """Check the settings; exit code 2 and the reason if one is wrong."""
    invocation = invocation_of(context)
    _, origins = _load(invocation)
    chosen = sum(origin != "default" for origin in origins.values())
    invocation.result(
        '{"ok":true}'
        if invocation.as_json
        else f"All settings are valid: {chosen} set, {len(origins) - chosen} at their defaults."
    )


def _load(invocation: Invocation) -> tuple[Config, dict[str, str]]:
    return load_config(invocation.home, invocation.config, {}, os.environ)


def _as_json(
    invocation: Invocation, settings: Config, origins: dict[str, str], origin: bool
) -> str:
    shown: dict[str, Any] = {"home": str(settings.home)}
    for section in SECTIONS:
        values = msgspec.to_builtins(getattr(settings, section))
        shown[section] = (
            {
                key: {"value": value, "origin": origins[f"{section}.{key}"]}
                for key, value in values.items()
            }
            if origin
            else values
        )
    return msgspec.json.encode(shown).decode()
