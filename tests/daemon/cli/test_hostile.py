"""Every command in hostile environments: no traceback, and the right exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from daemon.cli.main import cli
from tests.daemon.cli import forked

pytestmark = pytest.mark.real

REPOSITORY = Path(__file__).parents[3]
ADDRESS = "0x52908400098527886E0F7030069857D2E4169EE7"
NO_USER = "54321"

# Each command with arguments that end it at once, and its exit code in a normal environment.
ROWS: dict[str, tuple[tuple[str, ...], int]] = {
    "start": (("--run", "/missing.toml"), 2),
    "status": ((), 3),
    "peers": ((), 3),
    "stop": ((), 3),
    "observe": ((), 2),
    "export": (("/missing/model",), 2),
    "evaluate": ((), 2),
    "round": ((), 1),
    "repair": ((), 2),
    "demo": (("--run", "/missing.toml"), 2),
    "wallet new": ((), 5),
    "wallet import": (("/missing.json",), 2),
    "wallet show": ((), 5),
    "wallet backup": (("/missing/backup",), 5),
    "wallet set-payout": ((ADDRESS,), 0),
    "rewards": ((), 2),
    "rewards verify": ((), 2),
    "rewards claim": ((), 2),
    "settle": ((), 2),
    "sanction": ((), 2),
    "session show": ((), 2),
    "session create": ((), 2),
    "session activate": ((), 2),
    "session complete": ((), 2),
    "session cancel": (("--reason", "over"), 2),
    "config show": ((), 0),
    "config check": ((), 0),
    "devnet": (("--genesis-only",), 0),
    "bench faults": (("--runs", "0"), 2),
    "bench allreduce": (("--peers", "1"), 2),
    "bench codecs": (("--elements", "0"), 2),
    "bench tls": (("--mb", "0"), 2),
    "bench training": (("--peers", "1"), 2),
    "bench targets": (("--nonsense",), 2),
    "pause": ((), 3),
    "resume": ((), 3),
    "finish": ((), 3),
    "logs": ((), 1),
    "completion": (("bash",), 0),
    "invite": ((), 2),
    "revoke": (("abcd",), 2),
    "run follow": (("abcd",), 2),
    "run fork": (("abcd",), 2),
    "run recover": ((), 2),
    "run rollback": (("--to", "1"), 2),
    "run pause": ((), 2),
    "run resume": ((), 2),
    "run stop": ((), 2),
    "doctor": (("--nonsense",), 2),
    "bugreport": (("--output", "/missing/report"), 1),
    "service install": (("--print",), 0),
    "service uninstall": (("--nonsense",), 2),
    "api": ((), 2),
    "bench inference": (("--answers", "0"), 2),
    "sample": ((), 2),
    "serve": (("smollm2", "--layers", "x"), 2),
    "generate": (("hello",), 2),
    "task check": (("--run", "/missing.toml"), 2),
    "model fetch": (("nonsense",), 2),
    "model list": ((), 0),
    "config set": (("node.name", "x"), 0),
    "config unset": (("node.name",), 0),
    "bench audits": (("--nonsense",), 2),
    "bench stage-audits": (("--nonsense",), 2),
    "bench worker": (("--nonsense",), 2),
    "bench poisoning": (("--nonsense",), 2),
    "simulate": (("--list",), 0),
}
NEEDS_NO_HOME = {
    "demo",
    "wallet import",
    "bench faults",
    "bench allreduce",
    "bench codecs",
    "bench tls",
    "bench training",
    "bench targets",
    "bench audits",
    "bench poisoning",
    "bench stage-audits",
    "bench worker",
    "completion",
    "task check",
    "model list",
    "simulate",
}


class Case(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One call, as `forked.py` reads it."""

    arguments: list[str]
    environ: dict[str, str]
    directory: str
    gone: bool = False
    streams: dict[str, str] = {}


class Outcome(msgspec.Struct, kw_only=True):
    """How a call ended."""

    code: int
    out: str
    err: str


def leaves(
    command: click.Command, context: click.Context, path: tuple[str, ...] = ()
) -> Iterator[str]:
    """The full names of all commands that are not groups."""
    if isinstance(command, click.Group):
        if command.invoke_without_command:
            yield " ".join(path)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, context, (*path, name))
    else:
        yield " ".join(path)


def test_rows_have_every_command() -> None:
    assert set(leaves(cli, click.Context(cli))) == set(ROWS)


def play(cases: list[Case], tmp_path: Path, prefix: tuple[str, ...] = ()) -> list[Outcome]:
    """Run all cases in one process that forks."""
    found = tmp_path / "outcomes.json"
    found.touch()
    found.chmod(0o666)
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.daemon.cli.forked", str(found)],
        input=msgspec.json.encode(cases),
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Outcome(**one) for one in json.loads(found.read_text(encoding="utf-8"))]


def environ_of(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        **more,
    }


def cases_of(tmp_path: Path, number: int, **more: Any) -> list[Case]:
    """The whole table in one environment, each call with a home of its own."""
    made = []
    for row, (name, (arguments, _)) in enumerate(ROWS.items()):
        home = tmp_path / f"{number}-{row}"
        home.mkdir(mode=0o755)
        changed = {key: value.format(home=home) for key, value in more.get("environ", {}).items()}
        environ = {
            key: value for key, value in (environ_of(home) | changed).items() if value != "-"
        }
        directory = home / "cwd"
        directory.mkdir()
        options = [option.format(home=home) for option in more.get("options", ())]
        made.append(
            Case(
                arguments=[*options, *name.split(), *arguments],
                environ=environ,
                directory=str(directory),
                gone=more.get("gone", False),
                streams=more.get("streams", {}),
            )
        )
    return made


def is_printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def check(name: str, case: Case, outcome: Outcome, expected: int) -> None:
    """Check what holds for every call."""
    told = f"{name} {case}: {outcome}"
    assert "Traceback" not in outcome.err, told
    assert outcome.code == expected, told
    assert is_printable(outcome.err), told
    silent = case.streams.get("2") or (expected in (0, 1) and case.streams.get("1") == forked.LEFT)
    if expected and not silent:
        assert (
            outcome.err.startswith(("hypergpud: ", "Usage: ")) or "\nhypergpud: " in outcome.err
        ), told


# Environments that change no exit code of the table.
HARMLESS: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "a home that is no directory of ours": {
        "environ": {"HOME": "/nonexistent", "HYPERGPU_HOME": "{home}/new"}
    },
    "XDG_DATA_HOME relative": {"environ": {"XDG_DATA_HOME": "not/absolute"}},
    "XDG_DATA_HOME empty": {"environ": {"XDG_DATA_HOME": ""}},
    "HOME empty, but the user has one": {"environ": {"HOME": "", "HYPERGPU_HOME": "{home}/new"}},
    "a tilde in --home": {"options": ("--home", "~/x")},
    "a tilde in HYPERGPU_HOME": {"environ": {"HYPERGPU_HOME": "~/x"}},
    "a name of emoji, right-to-left and line feeds": {
        "options": ("--home", "{home}/\U0001f600\u202ex\ny\x1b[31m")
    },
    "TERM dumb, columns 20": {"environ": {"TERM": "dumb", "COLUMNS": "20"}},
    "no TERM, columns 0": {"environ": {"TERM": "-", "COLUMNS": "0", "LINES": "x"}},
    "columns garbage": {"environ": {"COLUMNS": "wide"}},
    "no place for temporary files": {
        "environ": {"TMPDIR": "/nonexistent", "HYPERGPU_HOME": "{home}/new"}
    },
    "the current directory is gone": {"gone": True},
    "stdin open": {"streams": {"0": ""}},
    "stderr closed": {"streams": {"2": forked.CLOSED}},
    "stderr full": {"streams": {"2": forked.FULL}},
    "stderr left": {"streams": {"2": forked.LEFT}},
    "quiet": {"options": ("-q",)},
    "json": {"options": ("--json",)},
}
# Environments that refuse the result: 1 where the table has 0.
MUTE: dict[str, dict[str, Any]] = {
    "stdout closed": {"streams": {"1": forked.CLOSED}},
    "stdout full": {"streams": {"1": forked.FULL}},
    "stdout left": {"streams": {"1": forked.LEFT}},
    "all closed": {"streams": {"0": forked.CLOSED, "1": forked.CLOSED, "2": forked.CLOSED}},
}
# Environments without a usable home: 2, except for commands that need no home.
HOMELESS: dict[str, dict[str, Any]] = {
    "a home that is empty text": {"options": ("--home", "")},
    "a home of nobody": {"options": ("--home", "~nosuchuser/x")},
    "a home with a name too long": {"options": ("--home", "x" * 5000)},
    "a relative home, and no current directory": {"options": ("--home", "x"), "gone": True},
}


def play_all(
    tmp_path: Path, environments: dict[str, dict[str, Any]], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[str, Case, Outcome]]:
    cases = [
        case
        for number, more in enumerate(environments.values())
        for case in cases_of(tmp_path, number, **more)
    ]
    for case, outcome, name in zip(
        cases, play(cases, tmp_path, prefix), list(ROWS) * len(environments), strict=True
    ):
        yield name, case, outcome


def test_commands_in_harmless_environments_keep_their_exit_codes(tmp_path: Path) -> None:
    for name, case, outcome in play_all(tmp_path, HARMLESS):
        check(name, case, outcome, ROWS[name][1])


def test_commands_whose_result_cannot_be_written_fail(tmp_path: Path) -> None:
    for name, case, outcome in play_all(tmp_path, MUTE):
        check(name, case, outcome, ROWS[name][1] or 1)


def test_commands_without_a_usable_home_say_so(tmp_path: Path) -> None:
    for name, case, outcome in play_all(tmp_path, HOMELESS):
        check(name, case, outcome, ROWS[name][1] if name in NEEDS_NO_HOME else 2)


def test_commands_of_a_user_without_a_passwd_entry(tmp_path: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.getuid() != 0:
        pytest.skip(
            "needs root and setpriv: becomes a user without an entry in the password database"
        )
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(0o755)
    # That user must be able to read this checkout and the interpreter.
    rights = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    prefix = (setpriv, "--reuid", NO_USER, "--regid", NO_USER, "--clear-groups", *rights)
    nothing = {"HOME": "-"}
    for name, case, outcome in play_all(
        tmp_path,
        {"none": {"environ": nothing}, "~": {"environ": nothing, "options": ("--home", "~/x")}},
        prefix,
    ):
        check(name, case, outcome, ROWS[name][1] if name in NEEDS_NO_HOME else 2)
