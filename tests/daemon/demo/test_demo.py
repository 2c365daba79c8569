"""The demo with real processes and simulated training: result, exit codes, processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

FAKE_NODE = Path(__file__).parents[1] / "fake_node"
REPOSITORY = Path(__file__).parents[3]

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def bundled_run(tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text(
        'name = "fake"\ntask = "simple_cnn"\n[round]\nseconds = 1.0\n', encoding="utf-8"
    )
    return file


Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def demo(tmp_path: Path, bundled_run: Path) -> Iterator[Demo]:
    """Starts `hypergpud demo`; its homes are under tmp_path, so that a test can find them."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, faults: str = "") -> subprocess.Popen[str]:
        environ = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(FAKE_NODE), str(REPOSITORY)]),
            "TMPDIR": str(tmp_path),
            "FAKE_NODE_FAULTS": faults,
            "FAKE_NODE_PEERS": arguments[arguments.index("--peers") + 1],
            "HYPERGPU_NODE_NAME": "must not reach the children",
        }
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "daemon.cli.main",
                "demo",
                "--run",
                str(bundled_run),
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)
    until(lambda: not running(tmp_path), "its children ended")


def running(root: Path) -> list[int]:
    """The demo's processes with a home under `root`, found by their arguments."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and b"--lifeline" in (line := (entry / "cmdline").read_bytes())
                and str(root).encode() in line
            ):
                found.append(int(entry.name))
        except OSError:
            # The process ended meanwhile.
            continue
    return found


def until(happened: Callable[[], object], what: str, limit_s: float = 40.0) -> None:
    """Wait for something in other processes, which do not notify this one."""
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def lines_until(process: subprocess.Popen[str], word: str) -> list[str]:
    """The lines of stderr up to the first that contains `word`."""
    assert process.stderr is not None
    seen: list[str] = []
    for line in process.stderr:
        seen.append(line)
        if word in line:
            return seen
    raise AssertionError(f"{word!r} was never said: {seen}")


def test_demo_with_enough_rounds_ends_well_and_leaves_nothing(demo: Demo, tmp_path: Path) -> None:
    process = demo("--peers", "3", "--rounds", "12", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    verdict = json.loads(out)
    assert list(verdict) == [
        "peers",
        "rounds_certified",
        "agreement",
        "loss_first",
        "loss_last",
        "samples_per_second",
        "bytes_sent",
    ]
    assert verdict["peers"] == 3
    assert verdict["rounds_certified"] >= 12
    assert verdict["agreement"] is True
    assert (verdict["loss_first"], verdict["loss_last"] <= 1 / 12) == (1.0, True)
    assert 0 < verdict["samples_per_second"] <= 110
    assert verdict["bytes_sent"] >= 3 * 1200
    assert "round 1: " in err
    assert running(tmp_path) == []
    assert not list(tmp_path.glob("hypergpu-demo-*")), "a good demo leaves no files"


def test_demo_prints_its_result_as_text(demo: Demo) -> None:
    out, err = demo("--peers", "2", "--rounds", "2", "--quiet").communicate(timeout=120)
    assert out.startswith(
        tuple(
            f"{number} rounds were certified by 2 peers, and they agree byte for byte"
            for number in range(2, 60)
        )
    )
    assert err == ""


def test_demo_on_a_terminal_shows_the_live_view(tmp_path: Path, bundled_run: Path) -> None:
    """stderr is a real (pseudo) terminal; stdout carries the verdict alone."""
    ours, theirs = pty.openpty()
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(FAKE_NODE), str(REPOSITORY)]),
        "TMPDIR": str(tmp_path),
        "TERM": "xterm",
    }
    command = [
        sys.executable,
        "-m",
        "daemon.cli.main",
        "demo",
        "--run",
        str(bundled_run),
        "--peers",
        "2",
        "--rounds",
        "12",
        "--json",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environ
    )
    os.close(theirs)
    shown = bytearray()
    # Linux raises EIO once the other side is closed.
    with suppress(OSError):
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown.decode()
    assert json.loads(out)["agreement"] is True
    assert b"node-2" in shown
    assert b"\x1b[" in shown, "the view was not redrawn in place"
    assert b"round 1: " not in shown, "plain lines beside the live view"


def test_demo_finds_anchors_that_differ(demo: Demo) -> None:
    process = demo("--peers", "3", "--rounds", "2", faults="differ:node-3")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "do NOT agree" in out
    assert "node-3" in out
    assert "are kept in" in err


def test_demo_continues_after_a_daemon_died(demo: Demo) -> None:
    process = demo("--peers", "3", "--rounds", "20", "--json", faults="die:node-2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["rounds_certified"] >= 20
    assert "node-2 ended with exit code 9; the others continue" in err
    assert "the sky fell on its head" in err


def test_demo_says_why_the_first_daemon_did_not_start(demo: Demo) -> None:
    process = demo("--peers", "2", "--rounds", "2", "--json", faults="crash:node-1")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert "DEMO_START" in err
    assert "it cannot start" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_ends_with_a_result_on_a_signal(
    demo: Demo, tmp_path: Path, number: signal.Signals
) -> None:
    process = demo("--peers", "2", "--json")
    assert "http://127.0.0.1:" in lines_until(process, "page of this swarm")[-1]
    lines_until(process, "round ")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["rounds_certified"] > 0
    assert running(tmp_path) == []


def test_demo_interrupted_before_its_rounds_exits_130(demo: Demo, tmp_path: Path) -> None:
    process = demo("--peers", "2", "--rounds", "100000", "--json")
    lines_until(process, "round 9:")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["agreement"] is True
    assert running(tmp_path) == []


def test_kill_9_of_the_demo_ends_all_its_processes(demo: Demo, tmp_path: Path) -> None:
    process = demo("--peers", "3")
    lines_until(process, "page of this swarm")
    # Three daemons, the observer and the lone machine.
    assert len(running(tmp_path)) == 5
    process.kill()
    process.communicate(timeout=10)
    until(lambda: not running(tmp_path), "all children ended")


def test_kill_9_during_the_first_start_ends_all_its_processes(demo: Demo, tmp_path: Path) -> None:
    process = demo("--peers", "3")
    lines_until(process, "Starting")
    until(lambda: running(tmp_path), "the first daemon was started")
    process.kill()
    process.communicate(timeout=10)
    until(lambda: not running(tmp_path), "it ended")


def test_demo_interrupted_during_the_first_start_starts_no_other_daemon(
    demo: Demo, tmp_path: Path
) -> None:
    process = demo("--peers", "3", "--rounds", "5")
    lines_until(process, "Starting")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out.startswith("No round was certified")
    assert "node-2" not in err
    assert running(tmp_path) == []


@pytest.mark.slow
def test_demo_kills_a_suspended_daemon_at_its_end(demo: Demo, tmp_path: Path) -> None:
    """A daemon that got SIGSTOP answers nothing; the demo must end it all the same."""
    process = demo("--peers", "2")
    lines_until(process, "round 2")
    victim = next(
        pid for pid in running(tmp_path) if b"node-2" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(victim, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert "node-2 did not stop within" in err
    assert running(tmp_path) == []
