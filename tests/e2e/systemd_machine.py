"""A real systemd as process 1 of a namespace of its own, with no unit of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.processes import descendants, until

SYSTEMD = "/lib/systemd/systemd"
UNITS = "/lib/systemd/system"
# The targets that a service of ours is ordered by. Their dependencies stay behind.
TARGETS = ("basic", "sysinit", "shutdown", "multi-user", "network-online", "probe")
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
UP_S = 30.0
# Everything that systemd reads or writes is empty there, and gone with the namespace.
_SETUP = f"""
set -e
mount --make-rprivate /
for folder in /run /etc/systemd/system {UNITS}; do mount -t tmpfs -o mode=755 tmpfs $folder; done
mkdir -p /run/systemd/system /run/lock /run/home
for target in {" ".join(TARGETS)}; do
    printf '[Unit]\\nDescription=%s\\nDefaultDependencies=no\\n' $target > {UNITS}/$target.target
done
mount -t proc proc /proc
export container=docker
exec {SYSTEMD} --system --unit=probe.target --log-target=console --show-status=0
"""


class SystemdMachine:
    """Runs commands beside a systemd that a test started."""

    def __init__(self, pid: int) -> None:
        """`pid` is the number of the systemd outside."""
        self._enter = ("nsenter", "-t", str(pid), "-m", "-p")

    def run(self, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._enter, *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "-p", name, "--value", unit).stdout.strip()


@contextmanager
def systemd_machine(log: Path) -> Iterator[SystemdMachine]:
    """Start systemd, and end it with all that it started. Skips the test where that fails."""
    if os.geteuid() != 0:
        pytest.skip("only root starts a systemd in a namespace")
    if not Path(SYSTEMD).exists() or shutil.which("unshare") is None:
        pytest.skip("systemd or unshare is not installed")
    before = {group for root in CGROUPS if root.is_dir() for group in root.iterdir()}
    flags = ("--fork", "--pid", "--mount", "--uts", "--ipc", "--kill-child=SIGKILL")
    with log.open("wb") as output:
        outer = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", _SETUP],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        machine = _when_up(outer, log)
        yield machine
    finally:
        # The kernel ends every process of the namespace with its process 1.
        for process in descendants(outer.pid):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        outer.kill()
        outer.wait(10)
        _remove_groups(before)


def _when_up(outer: subprocess.Popen[bytes], log: Path) -> SystemdMachine:
    def answers() -> SystemdMachine | None:
        if outer.poll() is not None:
            pytest.skip(f"no systemd runs here: {log.read_text(errors='replace')[-300:]}")
        started = descendants(outer.pid)
        if not started:
            return None
        machine = SystemdMachine(started[0].pid)
        done = machine.run("systemctl", "is-system-running")
        return machine if done.stdout.strip() in ("running", "degraded") else None

    machine = until(answers, "systemd is up", UP_S)
    assert machine is not None
    return machine


def _remove_groups(before: set[Path]) -> None:
    """Remove the empty control groups that the systemd left."""
    for root in CGROUPS:
        for group in set(root.iterdir()) - before if root.is_dir() else ():
            for parent, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    os.rmdir(parent)
