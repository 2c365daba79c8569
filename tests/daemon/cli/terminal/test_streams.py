"""Standard streams that are closed, full or left by their reader, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.version import version
from tests.daemon.cli.conftest import REPOSITORY, Hypergpud
from tests.daemon.cli.test_commands import RUN

pytestmark = pytest.mark.real

COMMAND = f"{sys.executable} -m daemon.cli.main"


def shell(
    line: str, environ: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        env=environ,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("{} config show >&-", 1, "[OUTPUT]"),
        ("{} config show >/dev/full", 1, "No space left on device"),
        ("{} --help >/dev/full", 1, "No space left on device"),
        ("{} --json config show >&- 2>&-", 1, ""),
        ("{} config show 2>&-", 0, ""),
        ("{} config show <&- >&- 2>&-", 1, ""),
        ("{} status >&- 2>/dev/full", 3, ""),
        ("{} config show | head -1; exit ${{PIPESTATUS[0]}}", None, ""),
    ],
)
def test_exit_code_with_unusable_streams(
    line: str, code: int | None, said: str, unbuffered: str, environ: dict[str, str]
) -> None:
    done = shell(line.format(COMMAND), environ | {"PYTHONUNBUFFERED": unbuffered})
    # The reader may leave before or after the command writes.
    assert done.returncode == code if code is not None else done.returncode in (0, 1), done
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}]
)
def test_ascii_locale_changes_no_name(
    locale: dict[str, str], environ: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "日本-Ünïcode"
    made = shell(
        f"{COMMAND} --home {home} wallet set-payout {'0x' + '11' * 20}",
        environ | locale | {"PYTHONUTF8": "0"},
    )
    assert made.returncode == 0, made
    assert (home / "payout").is_file()
    shown = shell(
        f"{COMMAND} --home {home} --json config show", environ | locale | {"PYTHONUTF8": "0"}
    )
    assert f'"home":"{home}"' in shown.stdout


def test_ascii_output_replaces_our_marks(environ: dict[str, str], tmp_path: Path) -> None:
    done = shell(f"{COMMAND} --home {tmp_path}/é status", environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3
    assert f"{tmp_path}/?" in done.stderr


def test_node_without_any_stream_starts_and_stops(
    environ: dict[str, str], hypergpud: Hypergpud, tmp_path: Path
) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(RUN, encoding="utf-8")
    done = shell(
        f"{COMMAND} start --run {run_file} <&- >&- 2>&- & node=$!; "
        f"for i in $(seq 100); do {COMMAND} status >/dev/null 2>&1 && break; sleep 0.1; done;"
        f" {COMMAND} stop || exit 9; wait $node",
        environ,
    )
    assert done.returncode == 0, done


def test_tilde_is_the_users_home_in_every_place(environ: dict[str, str], tmp_path: Path) -> None:
    del environ["HYPERGPU_HOME"]
    more = environ | {"HOME": str(tmp_path)}
    (tmp_path / "other.toml").write_text(
        '[worker]\nnice = 7\ndata_folders = ["~/data"]\n', encoding="utf-8"
    )
    for line in (
        f"{COMMAND} --home '~/x' --config '~/other.toml' --json config show",
        f"HYPERGPU_HOME='~/x' HYPERGPU_CONFIG='~/other.toml' {COMMAND} --json config show",
    ):
        shown = shell(line, more, cwd=Path("/"))
        assert f'"home":"{tmp_path}/x"' in shown.stdout, shown
        assert '"nice":7' in shown.stdout
        assert f'"data_folders":["{tmp_path}/data"]' in shown.stdout


def test_completion_answers_a_shell(environ: dict[str, str]) -> None:
    done = shell(
        f"COMP_WORDS='hypergpud sta' COMP_CWORD=1 _HYPERGPUD_COMPLETE=bash_complete {COMMAND}",
        environ,
    )
    assert done.stdout.splitlines() == ["plain,start", "plain,status"]


def test_argument_that_is_not_utf8_is_reported(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "daemon.cli.main",
            "--home",
            os.fsdecode(b"/tmp/\xff"),
            "--json",
            "config",
            "show",
        ],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "is not UTF-8 text" in done.stderr


def test_non_blocking_pipe_gets_the_whole_output(environ: dict[str, str]) -> None:
    """Writes more than the pipe holds, to a reader that starts late."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from daemon.cli.terminal.streams import prepare_streams;"
            " prepare_streams(); print('x' * 300_000)",
        ],
        env=environ,
        stdout=write_end,
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as reader:
        assert len(reader.read()) == 300_001
    assert process.wait(timeout=30) == 0


def test_ctrl_c_while_the_command_line_loads_exits_130(environ: dict[str, str]) -> None:
    """A fake finder for click sends the signal during the import, before any command exists."""
    code = "import os, signal, sys, types; from importlib.abc import MetaPathFinder\n"
    code += "class Press(MetaPathFinder):\n def find_spec(self, name, path, target=None):\n"
    code += "  if name == 'click': signal.raise_signal(signal.SIGINT)\n"
    code += "sys.meta_path.insert(0, Press())\n"
    code += "from daemon.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_console_script_is_the_entry(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.entry", "--version"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"hypergpud {version()}\n")
    assert 'hypergpud = "daemon.cli.entry:main"' in (REPOSITORY / "pyproject.toml").read_text(
        encoding="utf-8"
    )
