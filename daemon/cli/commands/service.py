"""`service install` and `service uninstall`: run the node under systemd."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec

from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.home.layout import ensure_home, user_path
from daemon.home.service_unit import MARK, NAME, Unit, system_unit, user_unit
from protocol.errors import UserError

SYSTEMCTL_S = 30.0

system_option = click.option(
    "--system", "of_system", is_flag=True, help="For the whole machine (as root), not for you."
)


class ServiceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `service install` and `service uninstall` print with `--json`."""

    unit: str
    installed: bool
    enabled: bool
    note: str


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def service() -> None:
    """Run this node under systemd, from the boot or the login on."""


@service.command()
@system_option
@click.option("--user", "user", metavar="NAME", help="With --system: run the node as this user.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit and change nothing.")
@global_options(hidden=True)
@click.pass_context
def install(context: click.Context, of_system: bool, user: str | None, only_print: bool) -> None:
    """Write the unit and enable it.

    Without --system the node runs while you are logged in; to run it from the boot on:
    loginctl enable-linger.
    """
    invocation = invocation_of(context)
    unit = _unit(invocation, of_system, user)
    if only_print:
        invocation.result(unit.text.rstrip())
        return
    ensure_home(invocation.home)
    _refuse_foreign(unit.path)
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        unit.path.write_text(unit.text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(unit, error) from None
    failed = _systemctl(unit, "daemon-reload") or _systemctl(unit, "enable", NAME)
    start = " ".join((*unit.systemctl, "start", NAME))
    if failed:
        reload = " ".join((*unit.systemctl, "daemon-reload"))
        note = f"systemd did not take it ({failed}). Type: {reload} && {start}"
    else:
        note = f"To start it now: {start}"
    _report(invocation, unit, installed=True, enabled=not failed, note=note)


@service.command()
@system_option
@global_options(hidden=True)
@click.pass_context
def uninstall(context: click.Context, of_system: bool) -> None:
    """Stop and disable the service, and remove its unit. The home stays."""
    invocation = invocation_of(context)
    unit = _unit(invocation, of_system, None)
    if not unit.path.exists():
        raise UserError(
            "SERVICE",
            f"No service is installed at {unit.path}.",
            fix="for that of the whole machine: hypergpud service uninstall --system"
            if not of_system
            else "hypergpud service uninstall",
        )
    _refuse_foreign(unit.path)
    failed = _systemctl(unit, "disable", "--now", NAME)
    try:
        unit.path.unlink()
    except OSError as error:
        raise _unwritable(unit, error) from None
    _systemctl(unit, "daemon-reload")
    note = f"systemd did not stop it ({failed})" if failed else f"The home {invocation.home} stays."
    _report(invocation, unit, installed=False, enabled=False, note=note)


def _unit(invocation: Invocation, of_system: bool, user: str | None) -> Unit:
    program = Path(sys.argv[0])
    # A relative path needs a current directory, which may be gone.
    if program.name != "hypergpud" or not program.is_absolute():
        program = Path(sys.executable).parent / "hypergpud"
    if of_system:
        return system_unit(program, invocation.home, user or getpass.getuser())
    if user is not None:
        raise UserError(
            "USAGE", "--user needs --system.", fix="leave --user out, or add --system", exit_code=2
        )
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else user_path("~/.config", "HOME")
    return user_unit(program, invocation.home, folder / "systemd" / "user")


def _refuse_foreign(path: Path) -> None:
    """Raise `UserError` for a unit of that name that a person or another program wrote."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        text = str(error)
    if not text.startswith(MARK):
        raise UserError(
            "SERVICE",
            f"{path} was not written by hypergpud, so it stays as it is.",
            fix=f"move it away, then try again: mv {path} {path}.old",
        )


def _unwritable(unit: Unit, error: OSError) -> UserError:
    return UserError(
        "SERVICE",
        f"Cannot write {unit.path}.",
        why=error.strerror or str(error),
        fix="run this as root" if unit.is_system else "check the permissions of that folder",
    )


def _systemctl(unit: Unit, *arguments: str) -> str:
    """Run systemctl. Returns why it failed, in one line, or an empty string."""
    try:
        done = subprocess.run(
            [*unit.systemctl, *arguments],
            capture_output=True,
            text=True,
            timeout=SYSTEMCTL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")


def _report(
    invocation: Invocation, unit: Unit, *, installed: bool, enabled: bool, note: str
) -> None:
    if invocation.as_json:
        result = ServiceResult(unit=str(unit.path), installed=installed, enabled=enabled, note=note)
        invocation.result(msgspec.json.encode(result).decode())
        return
    did = "Wrote" if installed else "Removed"
    invocation.result(f"{did} {unit.path}. {note}")
