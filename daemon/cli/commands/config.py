"""`config show|set|unset|check`: the settings in force, and where each value comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.config.edit import set_setting, unset_setting
from daemon.config.loader import load_config, write_default_config
from daemon.config.settings import SECTIONS, Config, keys, toml_value
from daemon.home.layout import ensure_home
from daemon.home.lock import lock_holder


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def config() -> None:
    """Show, change or check the settings of this node."""


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


@config.command(name="set")
@click.argument("setting")
@click.argument("value")
@global_options(hidden=True)
@click.pass_context
def set_(context: click.Context, setting: str, value: str) -> None:
    """Write one setting into the config file.

    \b
    Examples: hypergpud config set network.listen_port 4001
              hypergpud config set network.join /ip4/192.0.2.1/tcp/4001/p2p/...

    Commas separate the parts of a list. Comments and other settings stay. A value that does not fit
    changes nothing. The node reads its settings when it starts.
    """
    invocation = invocation_of(context)
    _ensure_home(invocation)
    file = set_setting(invocation.home, invocation.config, setting, value)
    _say_changed(invocation, setting, file)


@config.command()
@click.argument("setting")
@global_options(hidden=True)
@click.pass_context
def unset(context: click.Context, setting: str) -> None:
    """Remove one setting from the config file: its default counts again."""
    invocation = invocation_of(context)
    _ensure_home(invocation)
    file = unset_setting(invocation.home, invocation.config, setting)
    _say_changed(invocation, setting, file)


def _ensure_home(invocation: Invocation) -> None:
    if invocation.config is None:
        ensure_home(invocation.home)
        write_default_config(invocation.home)


def _say_changed(invocation: Invocation, setting: str, file: Path) -> None:
    """Print the value in force, and where it comes from: a variable may override the file."""
    settings, origins = _load(invocation)
    section, _, key = setting.partition(".")
    value, origin = getattr(getattr(settings, section), key), origins[setting]
    if invocation.as_json:
        shown = {"setting": setting, "value": value, "origin": origin, "file": str(file)}
        invocation.result(msgspec.json.encode(shown).decode())
        return
    invocation.result(f"{setting} = {toml_value(value)}  # {origin}")
    if lock_holder(invocation.home) is not None:
        invocation.say("The node that runs here reads its settings at its next start.")


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
