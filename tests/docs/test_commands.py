"""Every page works as it says: a test runs its commands in their order, as a new user would.

Slow: the pages start real daemons, and one of them a demo with a chain.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPOSITORY, Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(900)]

PLACEHOLDER = "hgpu11D9crDdZ..."
COMMAND_S = 120.0
LONG_S = 600.0
UP_S = 120.0
ROUND_S = 240.0
STOP_S = 30.0


class Page:
    """One page being followed: its folder, its environment, and the daemons it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = PLACEHOLDER
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HYPERGPU_HOME": str(folder / "home"),
            "HYPERGPU_NETWORK_LISTEN_HOST": "127.0.0.1",
            "PYTHONPATH": str(folder),
        }

    def command(self, text: str, within_s: float, folder: Path | None = None) -> None:
        """Run shell commands. Fails the test where one fails."""
        done = subprocess.run(
            ["bash", "-euc", text.replace(PLACEHOLDER, self.address)],
            cwd=folder or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    @contextmanager
    def background(self, text: str, until: str) -> Iterator[None]:
        """Start a command and wait until it prints `until`. Stop it with the block."""
        log = self.folder / f"background-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euc", "exec env " + text.replace(PLACEHOLDER, self.address).strip()],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + UP_S
            while until not in (told := log.read_text(errors="replace")):
                assert process.poll() is None, f"{text}\n{told}"
                assert time.monotonic() < deadline, f"{text} did not print {until!r}\n{told}"
                time.sleep(0.2)
            if self.address == PLACEHOLDER and (found := re.search(r"--join (/\S+|hgpu\S+)", told)):
                self.address = found[1]
            yield
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def until_a_round_is_certified(self) -> None:
        """Wait until the page's first node shows a round."""
        deadline = time.monotonic() + ROUND_S
        while time.monotonic() < deadline:
            shown = subprocess.run(
                ["hypergpud", "status", "--json"],
                env=self.environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if shown.returncode == 0 and json.loads(shown.stdout)["run"]["number"] > 0:
                return
            time.sleep(1.0)
        pytest.fail(f"no round was certified within {ROUND_S:g} s")


def follow(page: Page, block: Block, daemons: ExitStack) -> None:
    """Do what one block says."""
    if "norun" in block.options:
        return
    if name := block.options.get("file"):
        (page.folder / name).write_text(block.text, encoding="utf-8")
        return
    if block.options.get("run") == "after-round":
        page.until_a_round_is_certified()
    if block.language == "python":
        program = page.folder / "program.py"
        program.write_text(block.text, encoding="utf-8")
        page.command(f"python {program}", COMMAND_S)
    elif block.language == "sh" and "background" in block.options:
        daemons.enter_context(page.background(block.text, block.options["until"]))
    elif block.language == "sh" and block.options.get("run") == "long":
        page.command(block.text, LONG_S, REPOSITORY)
    elif block.language == "sh":
        page.command(block.text, COMMAND_S)


def runnable(block: Block) -> bool:
    return block.language == "sh" or bool(block.options)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(runnable, blocks(page)))], ids=lambda page: page.name
)
def test_a_page_works_as_it_says(page: Path, tmp_path: Path) -> None:
    followed = Page(tmp_path)
    with ExitStack() as daemons:
        for block in filter(runnable, blocks(page)):
            follow(followed, block, daemons)
