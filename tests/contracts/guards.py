"""The list of guards: code to remove from a copy of the tree, and the test that must then fail.

`guards.toml` is the list.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec

REPOSITORY = Path(__file__).parents[2]
LIST = Path(__file__).with_name("guards.toml")
SOURCES = REPOSITORY / "contracts" / "src"
COMPILER = REPOSITORY / ".venv-contracts" / "bin" / "python"
COPIED = (
    "contracts",
    "protocol",
    "daemon",
    "simulator",
    "configs",
    "tests",
    "hypergpu.py",
    "pyproject.toml",
    "Makefile",
)
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".hypothesis")
# pytest's exit code. 2 and above mean that the trial proves nothing: a test does not exist, or an
# import fails.
TESTS_FAILED = 1
# The limit of one test. The slowest takes 5 s, and over 60 s with ten programs for each core.
TEST_S = 120
# The limit of a test that hangs without its guard. With the guard, each takes less than 1 s.
HANGS_S = 20
# The limit of a whole trial.
TRIAL_S = 280
# pytest-timeout prints this for a test that it ended.
TIMED_OUT = "Failed: Timeout"
CALLS = re.compile(r"(assert |\w+\._check_|@nonreentrant)")


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of code that a trial removes, and the test that must then fail.

    `guard` is text in `file`, within the function `of` if one is named. The trial replaces it by
    `without`. `trap` says what the guard prevents. A guard has a `test`, or `cannot_fail` says why
    it has none. If `hangs`, the test does not end without the guard. If `dies`, the interpreter is
    killed. For other guards, a hang or a crash counts as an invalid trial.
    """

    file: str
    guard: str
    test: str = ""
    cannot_fail: str = ""
    of: str = ""
    without: str = ""
    trap: str = ""
    hangs: bool = False
    dies: bool = False

    def __post_init__(self) -> None:
        if bool(self.test) == bool(self.cannot_fail):
            raise ValueError(f"{self.guard}: a test, or a reason why it has none")

    @property
    def name(self) -> str:
        function = f"{self.of}: " if self.of else ""
        return f"{Path(self.file).stem}: {function}{' '.join(self.guard.split())}"[:120]

    @property
    def is_contract(self) -> bool:
        return self.file.endswith(".vy")


def all_guards() -> list[Guard]:
    return msgspec.convert(tomllib.loads(LIST.read_text())["guard"], list[Guard])


TOKEN = re.compile(r"\w+|[^\w\s]|\n")


def place_of(guard: Guard, text: str) -> tuple[int, int]:
    """Return where the guard begins and ends, however the formatter broke its lines.

    Raises `ValueError` unless the guard is in the file, and once within its function.
    """
    start = text.index(f"def {guard.of}(") if guard.of else 0
    following = (
        re.compile(r"\n\n\n|\n    (?:async )?def |\n@").search(text, start + 1)
        if guard.of
        else None
    )
    end = following.start() if following else len(text)
    # This decorator is above its function.
    if guard.guard == "@nonreentrant":
        at = text.rindex(guard.guard, 0, start)
        return at, at + len(guard.guard)
    found = [one.span() for one in _pattern(guard.guard).finditer(text, start, end)]
    if len(found) != 1:
        raise ValueError(
            f"{guard.file}: {guard.guard!r} is {len(found)} times in {guard.of or 'it'}"
        )
    return found[0]


def _pattern(code: str) -> re.Pattern[str]:
    """The code's tokens with any space between them, and a comma before any closing bracket."""
    tokens = [token for token in TOKEN.findall(code.strip()) if token != "\n"]
    return re.compile(
        r"\s*".join(("(?:,\\s*)?" if token in ")]}" else "") + re.escape(token) for token in tokens)
    )


def taken_out(guard: Guard, text: str) -> str:
    """Return the file without the guard."""
    begin, end = place_of(guard, text)
    without = guard.without or (
        "" if guard.guard == "@nonreentrant" or not guard.is_contract else "pass"
    )
    # Only a statement on its own line has an indentation to keep.
    indent = text[text.rindex("\n", 0, begin) + 1 : begin]
    lines = textwrap.dedent(without.strip("\n")).splitlines()
    if len(lines) > 1 and not indent.strip():
        without = ("\n" + indent).join(lines)
    else:
        without = without if not guard.guard.startswith("\n") else without.strip()
    return text[:begin] + without + text[end:]


def guards_in(source: Path) -> set[tuple[str, str]]:
    """Find every guard of a contract by its form, as pairs of function and line."""
    found, waiting, function = set(), [], ""
    for line in source.read_text().splitlines():
        if named := re.match(r"\s*def (\w+)\(", line):
            function = named[1]
            found |= {(function, mark) for mark in waiting}
            waiting = []
        elif CALLS.match(line.strip()):
            if line.strip().startswith("@"):
                waiting.append(line.strip())
            else:
                found.add((function, line.strip().partition("  #")[0]))
    return found


def fails_without(guard: Guard, scratch: Path) -> str:
    """Return "" if the guard's test fails without the guard, or else what happened."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, scratch / name, ignore=NOT_COPIED)
        else:
            shutil.copy(source, scratch / name)
    file = scratch / guard.file
    file.write_text(taken_out(guard, file.read_text()))
    if guard.is_contract:
        subprocess.run(
            [COMPILER, scratch / "contracts" / "build.py", "--only", _contract(guard.file)],
            check=True,
            capture_output=True,
        )
    limit = HANGS_S if guard.hangs else TEST_S
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "--no-header",
        "--timeout",
        str(limit),
        guard.test,
    ]
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            env=os.environ | {"PYTHONPATH": str(scratch)},
            capture_output=True,
            text=True,
            timeout=TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{guard.test} did not end within {TRIAL_S} s"
    if done.returncode == TESTS_FAILED and TIMED_OUT in done.stdout and not guard.hangs:
        return f"{guard.test} was not over after {limit} s, and nothing says that it hangs"
    # A negative code means that a signal ended the process.
    if done.returncode == TESTS_FAILED or (done.returncode < 0 and guard.dies):
        return ""
    return f"exit code {done.returncode} of {guard.test}:\n{done.stdout[-800:]}"


def _contract(file: str) -> str:
    """Return the contract that contains a source file. Only the pool uses the library."""
    return "reward_pool" if "/library/" in file else Path(file).stem


def ids_in(files: Iterable[str]) -> set[str]:
    """Return the ids of all tests in some files, each with and without its parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", *files]
    said = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    whole = {line for line in said.stdout.splitlines() if "::" in line}
    return whole | {line.partition("[")[0] for line in whole}
