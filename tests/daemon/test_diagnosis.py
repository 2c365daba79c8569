"""The doctor, the bug report and the systemd unit, on real homes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from daemon.cli.terminal.doctor_text import doctor_text
from daemon.diagnosis.bug_report import bug_report, packed
from daemon.diagnosis.finding import Diagnosis, Finding
from daemon.diagnosis.machine import EARLIEST_S, clock_finding
from daemon.diagnosis.redaction import Redaction
from daemon.diagnosis.report import diagnose
from daemon.home.layout import CONFIG_FILE, KEY_FILE, LOG_FILE
from daemon.home.service_unit import MARK, system_unit, user_unit
from daemon.system.service_manager import READY, notify

pytestmark = pytest.mark.real


def findings(home: Path, **environ: str) -> dict[str, Finding]:
    return {one.what: one for one in diagnose(home, None, environ).findings}


def test_doctor_of_a_new_home_finds_nothing_that_blocks(tmp_path: Path) -> None:
    diagnosis = diagnose(tmp_path / "home", None, {})
    assert not diagnosis.is_blocked, diagnosis
    assert not (tmp_path / "home").exists()
    text = doctor_text(diagnosis, color=False)
    for what in ("settings", "disk", "memory", "clock", "device", "key", "ports", "node"):
        assert re.search(rf"^[✓!?] {what}\b", text, re.MULTILINE)


def test_doctor_names_each_thing_that_blocks_and_its_fix(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    (tmp_path / KEY_FILE).chmod(0o600)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / CONFIG_FILE).write_text(f"[network]\nlisten_port = {port}\n")
        found = findings(tmp_path)
    assert (found["key"].verdict, "mv " in found["key"].fix) == ("blocked", True)
    assert found["ports"].verdict == "blocked"
    assert str(port) in found["ports"].evidence
    (tmp_path / CONFIG_FILE).write_text("[network]\nlisten_prt = 1\n")
    assert "listen_port" in findings(tmp_path)["settings"].fix
    assert findings(tmp_path / KEY_FILE)["home"].verdict == "blocked"
    (tmp_path / CONFIG_FILE).unlink()
    assert findings(tmp_path, HYPERGPU_WORKER_DEVICE="cuda:9")["device"].verdict == "blocked"


def test_doctor_ends_with_exit_code_4_where_the_node_cannot_work(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    (tmp_path / KEY_FILE).chmod(0o600)
    done = run("doctor", "--json", home=tmp_path)
    assert done.returncode == 4, done.stderr
    verdicts = {one["what"]: one["verdict"] for one in json.loads(done.stdout)["findings"]}
    assert verdicts["key"] == "blocked"


def run(*arguments: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", *arguments, "--home", str(home)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_clock_of_another_year_blocks() -> None:
    assert clock_finding(EARLIEST_S - 1).verdict == "blocked"


def test_redaction_removes_secrets_and_keeps_a_story_readable(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path, ("workstation",))
    text = (
        f"12:04:09 at {tmp_path}/x on workstation: /ip4/203.0.113.7/tcp/4001 then 203.0.113.7 and"
        " 198.51.100.2, 2001:db8::7, 127.0.0.1; hgpu11D9crDdZabcdef; 0x" + "ab" * 20 + "; Bearer "
        "abcdefgh12345678; https://user:pass@rpc.example/secret; 0x" + "cd" * 32
    )
    shown = redaction.redacted(text)
    for gone in (
        "203.0.113.7",
        "198.51.100.2",
        "2001:db8",
        "hgpu1",
        "abab",
        "abcdefgh1234",
        "pass",
    ):
        assert gone not in shown
    assert "workstation" not in shown
    assert "cdcd" not in shown
    assert str(tmp_path) not in shown
    assert shown.count("[ip-1]") == 2
    assert "12:04:09" in shown
    assert "127.0.0.1" in shown


def test_bug_report_has_no_secret_of_the_home(tmp_path: Path) -> None:
    secret = "https://rpc.example/v1/key-that-costs-money"
    (tmp_path / CONFIG_FILE).write_text(f'[chain]\nrpc = ["{secret}"]\n# rpc = ["{secret}"]\n')
    (tmp_path / KEY_FILE).write_bytes(b"K" * 32)
    (tmp_path / KEY_FILE).chmod(0o600)
    (tmp_path / LOG_FILE).write_text(f"cannot reach {secret} from 203.0.113.9\n" * 9000)
    texts = bug_report(tmp_path, Diagnosis(findings=()))
    data = packed(texts, "report")
    assert len(data) < 1_000_000
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        whole = b"".join(file.read() for one in archive if (file := archive.extractfile(one)))
    assert "report/hypergpud.log" in names
    for gone in (b"rpc.example", b"key-that-costs", b"203.0.113.9", b"KKKK"):
        assert gone not in whole


def test_bugreport_never_overwrites_a_file(tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    done = run("bugreport", "--output", str(file), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert tarfile.is_tarfile(file)
    again = run("bugreport", "--output", str(file), home=tmp_path / "home")
    assert again.returncode == 1
    assert "name another file" in again.stderr


def test_service_is_installed_and_removed_and_leaves_foreign_units(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    unit = tmp_path / "config" / "systemd" / "user" / "hypergpud.service"
    home = tmp_path / "my home"
    done = run("service", "install", home=home, **environ)
    assert done.returncode == 0, done.stderr
    assert unit.read_text().startswith(MARK)
    assert f'--home "{home}" start' in unit.read_text()
    assert run("service", "install", home=home, **environ).returncode == 0
    removed = run("service", "uninstall", home=home, **environ)
    assert (removed.returncode, unit.exists()) == (0, False)
    assert run("service", "uninstall", home=home, **environ).returncode == 1
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    for command in ("install", "uninstall"):
        refused = run("service", command, home=home, **environ)
        assert refused.returncode == 1
        assert "was not written by hypergpud" in refused.stderr
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"


@pytest.mark.parametrize(
    ("program", "home", "private"),
    [
        ("/opt/env/bin/hypergpud", "/home/anna/.hypergpu", "yes"),
        ("/tmp/clone/.venv/bin/hypergpud", "/home/anna/.hypergpu", "no"),
        ("/opt/env/bin/hypergpud", "/var/tmp/node", "no"),
        ("/opt/env/bin/hypergpud", "/tmporary/node", "yes"),
    ],
)
def test_a_unit_keeps_sight_of_a_program_or_home_in_a_shared_folder(
    program: str, home: str, private: str
) -> None:
    text = system_unit(Path(program), Path(home), "anna").text
    assert f"PrivateTmp={private}" in text
    assert ("-/tmp -/var/tmp" in text) == (private == "no")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("of_system", [False, True])
def test_systemd_accepts_the_units(tmp_path: Path, of_system: bool) -> None:
    program = Path(sys.executable)
    home = tmp_path / "my $ 100% home"
    unit = system_unit(program, home, "root") if of_system else user_unit(program, home, tmp_path)
    file = tmp_path / "hypergpud.service"
    file.write_text(unit.text)
    mode = "--system" if of_system else "--user"
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", mode, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )
    told = [line for line in done.stderr.splitlines() if "hypergpud.service" in line]
    assert told == [], done.stderr


def test_notify_reaches_the_service_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify(READY)
    for address in (str(tmp_path / "notify"), f"\0hypergpu-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
            notify(READY)
            assert manager.recv(64) == b"READY=1"
    # A manager that is gone is no error.
    notify(READY)
