"""The systemd unit of a node, for one user or for the whole system."""

from __future__ import annotations

from pathlib import Path

import msgspec

NAME = "hypergpud.service"
MARK = "# Written by: hypergpud service install"
"""The first line of our units. `uninstall` removes no file without it."""

SYSTEM_FOLDER = Path("/etc/systemd/system")

_UNIT = """{mark}
[Unit]
Description=HyperGPU node
Documentation=https://www.freedesktop.org/software/systemd/man/systemd.service.html
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} --home {home} start
Restart=on-failure
RestartSec=10
# Wrong settings and a locked key need a person.
RestartPreventExitStatus=2 5
# A stop ends the step and writes a checkpoint.
TimeoutStopSec=60
# The first start loads the task, and a run may need minutes to be found.
TimeoutStartSec=infinity
KillMode=mixed
Nice=10
{more}
[Install]
WantedBy={target}
"""
_HARDENED = """User={user}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writable}
PrivateTmp={private}
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
# Not MemoryDenyWriteExecute or PrivateDevices: CUDA and compiled models need both off.
"""


SHARED_FOLDERS = (Path("/tmp"), Path("/var/tmp"))
"""The folders that `PrivateTmp` replaces. A unit with it finds no program or home below them."""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """Where a unit belongs, and its text."""

    path: Path
    text: str
    is_system: bool

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The command that manages the unit."""
        return ("systemctl",) if self.is_system else ("systemctl", "--user")


def quoted(path: Path) -> str:
    """Return a path for a unit: `%`, `$`, quotes and backslashes have a meaning there."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$")}"'


def user_unit(program: Path, home: Path, user_folder: Path) -> Unit:
    """Return the unit for the user's own manager. `user_folder` is where its units are."""
    text = _UNIT.format(
        mark=MARK, program=quoted(program), home=quoted(home), more="", target="default.target"
    )
    return Unit(path=user_folder / NAME, text=text, is_system=False)


def system_unit(program: Path, home: Path, user: str) -> Unit:
    """Return the unit for the system's manager, which runs the node as `user`."""
    inside = any(
        path.is_relative_to(shared) for path in (program, home) for shared in SHARED_FOLDERS
    )
    # A folder with "-" may be missing.
    shared = [f"-{folder}" for folder in SHARED_FOLDERS] if inside else []
    more = _HARDENED.format(
        user=user,
        writable=" ".join([quoted(home), *shared]),
        private="no" if inside else "yes",
    )
    text = _UNIT.format(
        mark=MARK,
        program=quoted(program),
        home=quoted(home),
        more=more,
        target="multi-user.target",
    )
    return Unit(path=SYSTEM_FOLDER / NAME, text=text, is_system=True)
