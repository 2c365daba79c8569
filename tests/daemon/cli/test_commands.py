"""The commands as real processes; only the training behind `start` is simulated."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.cli.main import run
from daemon.node.run_choice import RUN_OF_THE_JOINED
from daemon.version import version
from tests.daemon.cli.conftest import Hypergpud
from tests.e2e.processes import until

RUN = 'name = "fake"\ntask = "simple_cnn"\n'

pytestmark = pytest.mark.real

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(environ: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a daemon and waits for its Ready line.

    The attribute `said` of the process has its output until then.
    """
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "daemon.cli.main", "start", *arguments]
        process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("Ready"):
                break
        process.said = said  # type: ignore[attr-defined]
        assert said[-1].startswith("Ready"), said
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    file = tmp_path / "run.toml"
    file.write_text(RUN, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    "arguments", [("status",), ("status", "--json"), ("--json", "peers"), ("stop",)]
)
def test_commands_without_a_daemon_say_so_and_exit_3(
    hypergpud: Hypergpud, home: Path, arguments: tuple[str, ...]
) -> None:
    done = hypergpud(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert "NOT_RUNNING" in done.stderr
    assert f"hypergpud start --home {home}" in done.stderr
    assert not home.exists(), "asking creates nothing"


def test_start_status_peers_and_stop(
    hypergpud: Hypergpud, start: Start, home: Path, run_file: str
) -> None:
    daemon = start("--run", run_file, "--name", "ada")
    said = "".join(daemon.said)  # type: ignore[attr-defined]
    assert f"Wrote {home / 'config.toml'} with all settings at their defaults." in said
    assert f"Home: {home} (change: --home)." in said
    assert "Name: " not in said
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for file in home.iterdir():
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file

    status = json.loads(hypergpud("status", "--json").stdout)
    assert status["you"]["name"] == "ada"
    by_flag = hypergpud("--json", "--home", str(home), "status", HYPERGPU_HOME="/nowhere")
    assert json.loads(by_flag.stdout)["you"]["peer"] == status["you"]["peer"]
    peers = json.loads(hypergpud("peers", "--json").stdout)
    assert peers["peers"] == []
    assert peers["as_of"] > 1e9

    second = hypergpud("start", "--run", run_file)
    assert second.returncode == 1
    assert "ALREADY_RUNNING" in second.stderr
    assert f"process {daemon.pid}" in second.stderr

    done = hypergpud("stop", "--json")
    assert (done.returncode, done.stdout) == (0, '{"stopped":true}\n')
    daemon.wait(timeout=10)
    assert daemon.returncode == 0
    assert hypergpud("status").returncode == 3
    events = (home / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(events[0])["type"] == "NodeStarted"


def test_status_and_peers_as_text(hypergpud: Hypergpud, start: Start, run_file: str) -> None:
    start("--run", run_file, "--name", "ada")
    status = hypergpud("status")
    assert status.returncode == 0
    assert status.stderr == ""
    assert "ada" in status.stdout
    assert "\x1b" not in status.stdout, "no colours for a pipe"
    assert hypergpud("peers").returncode == 0


def test_status_watch_refreshes_until_interrupted(
    start: Start, environ: dict[str, str], run_file: str
) -> None:
    start("--run", run_file)
    command = [sys.executable, "-m", "daemon.cli.main", "status", "--watch", "--json"]
    watch = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watch.stdout is not None
    first, second = json.loads(watch.stdout.readline()), json.loads(watch.stdout.readline())
    assert second["as_of"] > first["as_of"]
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=10)
    assert (watch.returncode, err.strip()) == (130, "")


def test_restart_keeps_its_identity_and_lists_the_defaults_used(
    hypergpud: Hypergpud, start: Start, run_file: str
) -> None:
    first = start("--run", run_file)
    hypergpud("stop")
    first.wait(timeout=10)
    again = start("--run", run_file)
    assert again.said[-1] == first.said[-1]  # type: ignore[attr-defined]
    assert any(line.startswith("Name: node-") for line in again.said)  # type: ignore[attr-defined]
    assert not any("Wrote" in line for line in again.said)  # type: ignore[attr-defined]


def test_start_with_join_gets_the_run_from_the_peer(start: Start) -> None:
    daemon = start("--join", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWExample")
    assert f"{RUN_OF_THE_JOINED}\n" in daemon.said  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("start", "--run", "/missing.toml"), 2, "MANIFEST"),
        (("start", "--run", "/missing.toml"), 2, "check the path after --run"),
        (("start", "--run", "abcd"), 2, "hypergpud start --run FILE, or --join MULTIADDR"),
        (("start", "--port", "http"), 2, "network.listen_port (--port)"),
        (("start", "--port", "70000"), 2, "correct it on the command line"),
        (("start", "--device", "tpu"), 2, "correct it on the command line"),
        (("simulate", "calmm"), 2, "the nearest name is calm"),
        (("start", "--join", "localhost:4001"), 2, "not a multiaddr"),
        (("start", "--home", "/proc/none"), 2, "HOME"),
        (("start", "--config", "/missing.toml"), 2, "CONFIG"),
        (("observe",), 2, "NO_SWARM"),
        (("statsu",), 2, "Did you mean status?"),
        (("version",), 2, "Did you mean --version?"),
        (("help",), 2, "Did you mean --help?"),
        (("start", "--lifeline", "99"), 2, "is not an open file descriptor"),
        (("simulate", "calm", "--save", "/nonexistent/x"), 2, "/nonexistent is not a directory"),
        (("simulate", "calm", "--plot", "/"), 2, "it is a directory"),
        (("simulate", "--schedule", "/dev/zero"), 2, "it has more than"),
        (("bench", "allreduce", "--engines", ","), 2, "Give at least one name"),
        (("bench", "allreduce", "--rtt", "nan"), 2, "is not a number"),
        (("devnet", "--port", "99999"), 2, "--port"),
        (("devnet", "--epoch", "-1"), 2, "--epoch"),
        (("settle", "--root", "abcd"), 2, "settle --dispute REASON --root HASH"),
        (("devnet", "--block-time", "nan"), 2, "is not a number"),
        (("frobnicate",), 2, "Unknown command 'frobnicate'. [USAGE]"),
        (("wallet", "shwo"), 2, "Did you mean show?"),
        (("wallet", "import", "/dev/zero"), 2, "it has more than"),
        (("wallet", "shwo"), 2, "hypergpud wallet --help lists its arguments"),
        (("start", "--join", "1.2.3.4:46273"), 2, "network.join (--join)"),
        (("start", "--join", "1.2.3.4:46273"), 2, "/ip4/1.2.3.4/tcp/46273/p2p/"),
        (("start", "--name", "\u202eevil"), 2, "node.name (--name)"),
        (("status", "--wacth"), 2, "--watch"),
        (("demo", "--peers", "1"), 2, "peers"),
    ],
)
def test_usage_errors_are_reported_with_a_fix(
    hypergpud: Hypergpud, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = hypergpud(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_node_whose_reader_leaves_keeps_running(
    environ: dict[str, str], run_file: str, hypergpud: Hypergpud, home: Path
) -> None:
    """As in `hypergpud start 2>&1 | head -1`, or after a terminal was closed."""
    command = [sys.executable, "-m", "daemon.cli.main", "start", "--run", run_file]
    read_end, write_end = os.pipe()
    os.close(read_end)
    daemon = subprocess.Popen(command, env=environ, stdout=write_end, stderr=write_end)
    os.close(write_end)
    try:
        until(lambda: hypergpud("status").returncode == 0, "it answers", 60.0)
        assert hypergpud("stop").returncode == 0
        assert daemon.wait(timeout=30) == 0
    finally:
        daemon.kill()


def test_invalid_setting_says_where_to_correct_it(hypergpud: Hypergpud, home: Path) -> None:
    assert (
        "unset HYPERGPU_WORKER_NICE"
        in hypergpud("config", "check", HYPERGPU_WORKER_NICE="99").stderr
    )
    home.mkdir()
    (home / "config.toml").write_text("[worker]\nnice = 99\n", encoding="utf-8")
    assert f"correct it in {home / 'config.toml'}" in hypergpud("config", "check").stderr


def test_config_show_and_check(hypergpud: Hypergpud, home: Path) -> None:
    shown = hypergpud("config", "show", HYPERGPU_WORKER_NICE="5")
    assert tomllib.loads(shown.stdout)["worker"]["nice"] == 5
    origin = hypergpud("config", "show", "--origin", HYPERGPU_WORKER_NICE="5")
    assert "nice = 5  # environment HYPERGPU_WORKER_NICE" in origin.stdout
    assert "port = 8765  # default" in origin.stdout
    as_json = json.loads(
        hypergpud("config", "show", "--origin", "--json", HYPERGPU_WORKER_NICE="5").stdout
    )
    assert as_json["worker"]["nice"] == {"value": 5, "origin": "environment HYPERGPU_WORKER_NICE"}
    assert hypergpud("config", "check").returncode == 0
    home.mkdir()
    (home / "config.toml").write_text("[worker]\nnise = 5\n", encoding="utf-8")
    wrong = hypergpud("config", "check")
    assert wrong.returncode == 2
    assert "did you mean worker.nice?" in wrong.stderr


def test_help_and_version(hypergpud: Hypergpud) -> None:
    shown = hypergpud("--help")
    assert shown.returncode == 0
    assert "--lifeline" not in hypergpud("start", "--help").stdout
    assert hypergpud("--version").stdout == f"hypergpud {version()}\n"


def test_quiet_prints_neither_messages_nor_warnings(
    environ: dict[str, str], run_file: str, hypergpud: Hypergpud
) -> None:
    command = [sys.executable, "-m", "daemon.cli.main", "-q", "start", "--run", run_file]
    daemon = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: hypergpud("status").returncode == 0, "it answers", 60.0)
        assert hypergpud("-q", "stop").stdout == "Stopped.\n"
        assert daemon.communicate(timeout=30) == ("", "")
        assert daemon.returncode == 0
    finally:
        daemon.kill()


def test_command_whose_reader_leaves_prints_no_error(environ: dict[str, str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "daemon.cli.main", "config", "show"]
    done = subprocess.run(
        command,
        env=environ,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def test_run_returns_the_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["status", "--home", str(tmp_path)]) == 3
    assert run(["nothing"]) == 2
    assert run(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: hypergpud")
