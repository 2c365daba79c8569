"""`logs` and `completion` as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.home.layout import LOG_FILE
from tests.daemon.cli.conftest import Hypergpud

pytestmark = pytest.mark.real


def _line(message: str, level: str = "info") -> bytes:
    line = {"at": 1e9, "level": level, "logger": "daemon.x", "message": message}
    return json.dumps(line).encode() + b"\n"


def test_logs_shows_the_last_lines_of_both_files_by_level(hypergpud: Hypergpud, home: Path) -> None:
    home.mkdir()
    (home / f"{LOG_FILE}.1").write_bytes(_line("one") + _line("two", "warning"))
    (home / LOG_FILE).write_bytes(_line("three\x1b[2J") + b'{"torn\n' + _line("four", "error"))
    shown = hypergpud("logs").stdout.splitlines()
    assert [line.split("  ")[-1] for line in shown] == [
        "one",
        "two",
        "three\ufffd[2J",
        '{"torn',
        "four",
    ]
    assert "\x1b" not in "".join(shown)
    assert len(hypergpud("logs", "-n", "2").stdout.splitlines()) == 2
    assert "three" not in hypergpud("logs", "--level", "warning").stdout
    assert json.loads(hypergpud("--json", "logs", "-n", "1").stdout)["message"] == "four"


def test_logs_follows_lines_over_a_rotation(environ: dict[str, str], home: Path) -> None:
    home.mkdir()
    log = home / LOG_FILE
    log.write_bytes(_line("one"))
    command = [sys.executable, "-m", "daemon.cli.main", "logs", "-f"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"one" in process.stdout.readline()
        with log.open("ab") as stream:
            stream.write(_line("two"))
        assert b"two" in process.stdout.readline()
        log.rename(home / f"{LOG_FILE}.1")
        log.write_bytes(_line("three"))
        assert b"three" in process.stdout.readline()
        process.terminate()


def test_logs_without_a_log_says_what_to_do(hypergpud: Hypergpud, home: Path) -> None:
    done = hypergpud("logs")
    assert (done.returncode, done.stdout) == (1, "")
    assert "NO_LOG" in done.stderr
    assert not home.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(hypergpud: Hypergpud, shell: str) -> None:
    done = hypergpud("completion", shell)
    assert done.returncode == 0
    assert "_HYPERGPUD_COMPLETE" in done.stdout


def test_completion_script_completes_commands_in_bash(
    hypergpud: Hypergpud, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "hypergpud").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m daemon.cli.main "$@"\n', encoding="utf-8"
    )
    (tmp_path / "hypergpud").chmod(0o755)
    script = hypergpud("completion", "bash").stdout
    ask = (
        "COMP_WORDS=(hypergpud sta); COMP_CWORD=1; _hypergpud_completion hypergpud; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env=environ | {"PATH": f"{tmp_path}:{environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert {"start", "status"} <= set(done.stdout.split()), done.stderr


def test_completion_for_an_unknown_shell_says_which_there_are(hypergpud: Hypergpud) -> None:
    done = hypergpud("completion", SHELL="/bin/tcsh")
    assert done.returncode == 2
    assert "hypergpud completion bash" in done.stderr
