"""`service install` with a real systemd: readiness, restart, stop, and what it leaves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from daemon.home.service_unit import NAME, SYSTEM_FOLDER
from tests.e2e.processes import until
from tests.e2e.systemd_machine import SystemdMachine, systemd_machine

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

# A folder of the namespace: the unit's own /tmp is another one.
HOME = "/run/home/node"
READY_S = 120.0
CONFIG = """[network]
listen_host = "127.0.0.1"
[page]
enabled = false
[worker]
device = "cpu"
threads = 1
"""


def hypergpud(machine: SystemdMachine, *arguments: str, timeout_s: float = READY_S) -> str:
    program = Path(sys.executable).with_name("hypergpud")
    done = machine.run(str(program), "--home", HOME, *arguments, timeout_s=timeout_s)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_service_runs_under_a_real_systemd_until_it_is_uninstalled(tmp_path: Path) -> None:
    with systemd_machine(tmp_path / "systemd.log") as machine:
        machine.run("mkdir", "-p", "-m", "700", HOME)
        machine.run("sh", "-c", f"printf '%s' '{CONFIG}' > {HOME}/config.toml")
        said = hypergpud(machine, "service", "install", "--system", "--user", "root")
        assert f"systemctl start {NAME}" in said
        unit = SYSTEM_FOLDER / NAME
        assert not unit.exists(), "this machine's own units stay as they are"

        began = machine.run("systemctl", "start", NAME, timeout_s=READY_S)
        assert began.returncode == 0, began.stderr
        # Type=notify: a start returns once the node said that it is ready.
        assert machine.show(NAME, "ActiveState") == "active"
        assert "round 1" in hypergpud(machine, "status")
        first = int(machine.show(NAME, "MainPID"))

        assert machine.run("kill", "-9", str(first)).returncode == 0
        until(lambda: machine.show(NAME, "NRestarts") == "1", "systemd restarts the node", READY_S)
        until(lambda: machine.show(NAME, "ActiveState") == "active", "it is ready again", READY_S)
        assert int(machine.show(NAME, "MainPID")) not in (0, first)

        assert machine.run("systemctl", "stop", NAME, timeout_s=90).returncode == 0
        assert machine.show(NAME, "Result") == "success"
        assert machine.show(NAME, "ExecMainStatus") == "0"
        said = hypergpud(machine, "service", "uninstall", "--system")
        assert "stays" in said
        assert machine.run("test", "-e", str(unit)).returncode == 1
        assert machine.run("test", "-e", f"{HOME}/node.key").returncode == 0
    assert not os.path.exists("/run/home"), "nothing of it is left here"
