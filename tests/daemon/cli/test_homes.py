"""Homes that cannot be used: the message says what happened, why, and what to type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.cli.conftest import REPOSITORY, Hypergpud

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("broken", "code", "said"),
    [
        ("lock", 2, "name another directory with --home PATH"),
        ("config.toml", 2, "let hypergpud start write a new one: mv "),
        ("node.key", 5, "it is not a regular file"),
    ],
)
def test_home_with_a_directory_instead_of_a_file_is_reported_with_a_fix(
    broken: str, code: int, said: str, hypergpud: Hypergpud, home: Path
) -> None:
    (home / broken).mkdir(parents=True, mode=0o700)
    done = hypergpud("start")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert str(home / broken) in done.stderr
    assert "Traceback" not in done.stderr


def test_home_of_another_user_is_reported_with_its_owner(
    home: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """Root without the right to read all files meets a file of another user."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.getuid() != 0:
        pytest.skip("needs root and setpriv: gives a home to somebody else")
    home.mkdir()
    config = home / "config.toml"
    config.touch(0o600)
    for path in (config, home):
        os.chown(path, 65534, 65534)
    rights = "-dac_override,-dac_read_search"
    for arguments in (("start",), ("config", "show")):
        command = [
            setpriv,
            f"--bounding-set={rights}",
            f"--inh-caps={rights}",
            sys.executable,
            "-m",
            "daemon.cli.main",
            *arguments,
        ]
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "Permission denied" in done.stderr
        assert "run this as the user who owns it" in done.stderr


def test_directory_instead_of_the_control_socket_is_reported_with_a_fix(
    home: Path, environ: dict[str, str]
) -> None:
    """The test runs the real daemon, since only the daemon opens the control socket."""
    (home / "control.sock").mkdir(parents=True)
    command = [sys.executable, "-m", "daemon.cli.main", "start"]
    done = subprocess.run(
        command,
        env=environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert f"{home / 'control.sock'}: Is a directory" in done.stderr
    assert "move away what is in its place" in done.stderr
    assert "Traceback" not in done.stderr


BROKEN_HOMES = {
    "read-only": (
        "mount -o remount,ro {home}",
        "Read-only file system",
        "name another directory with --home PATH",
    ),
    "full": (
        "head -c 1M /dev/zero > {home}/everything",
        "No space left on device",
        "free some space there",
    ),
}


@pytest.mark.parametrize("state", BROKEN_HOMES)
def test_home_that_refuses_writes_is_reported_with_a_fix(
    state: str, home: Path, environ: dict[str, str]
) -> None:
    """Uses a file system in a mount namespace of its own, which ends with the child."""
    then, why, fix = BROKEN_HOMES[state]
    home.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {home} || exit 77; "
    command = mount + then.format(home=home) + f"; exec {sys.executable} -m daemon.cli.main start"
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare")
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", command],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode in (1, 77) and "HOME" not in done.stderr and "Traceback" not in done.stderr:
        pytest.skip("needs root: mounts a small file system in a namespace of its own")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert why in done.stderr
    assert fix in done.stderr
