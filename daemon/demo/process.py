"""A process of the demo: a real `hypergpud` in its own session and home.

It ends when the demo ends, however the demo ends.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from daemon.config.settings import PREFIX, toml_value
from daemon.control.client import call
from daemon.disk.new_file import write_new
from daemon.home.layout import CONFIG_FILE
from daemon.models.known_models import MODELS
from protocol.errors import HyperGPUError
from protocol.status import Status

OUTPUT_FILE = "output.log"
# Enough for the end of a traceback.
TAIL_LINES = 12
TAIL_BYTES = 16 << 10
# A process prints the address of its page among its first lines.
URL_BYTES = 64 << 10
_URL = re.compile(r"http://127\.0\.0\.1:\d+")
# A daemon that is too busy to answer, or stopped, is asked again at the next look.
STATUS_TIMEOUT_S = 1.0


class Lifeline:
    """A pipe that only this process holds open.

    Its children see the pipe close when this process ends, even by SIGKILL.
    """

    def __init__(self) -> None:
        # A child inherits an end only if it is passed on explicitly.
        self.read_end, self._write_end = os.pipe()

    def close(self) -> None:
        """Close both ends, which ends every child that still runs."""
        os.close(self._write_end)
        os.close(self.read_end)


class DemoProcess:
    """One `hypergpud` process with a home of its own."""

    def __init__(self, name: str, home: Path, prefix: Sequence[str] = ()) -> None:
        """Starts nothing.

        `prefix` comes before the command. It must keep the process number, as `nsenter` does.
        """
        self.name = name
        self.home = home
        self._prefix = tuple(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        lifeline: Lifeline,
        settings: Mapping[str, Mapping[str, object]],
        arguments: Sequence[str],
        module: str = "daemon.cli.main",
    ) -> None:
        """Write the home's config and run `hypergpud *arguments`, or another module, on it.

        Of the caller's `HYPERGPU_*` variables, the child gets only the folder of models. A process
        that ended can be started again: it keeps its home and the config in it.
        """
        self.home.mkdir(mode=0o700, exist_ok=True)
        write_new(self.home / CONFIG_FILE, _toml(settings).encode())
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(PREFIX) or name == MODELS
        }
        own = ("--home", str(self.home), "--lifeline", str(lifeline.read_end))
        with (self.home / OUTPUT_FILE).open("ab") as output:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", module, *arguments, *own],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environ,
                pass_fds=(lifeline.read_end,),
                # Only the demo handles Ctrl-C of the terminal.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process number. Only after `start`."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ending(self) -> str:
        """How the process ended, as the end of a sentence."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return "has not ended"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def status(self) -> Status | None:
        """Return the daemon's status; None if it does not answer, or does not know its run yet."""
        try:
            status = msgspec.json.decode(
                call(self.home, "status", timeout_s=STATUS_TIMEOUT_S), type=Status
            )
        except (HyperGPUError, OSError):
            return None
        return status if status.you.peer else None

    def ask_to_stop(self) -> None:
        """Ask through the control socket; send SIGTERM if the process does not answer there."""
        if not self.alive:
            return
        try:
            call(self.home, "stop", timeout_s=STATUS_TIMEOUT_S)
        except (HyperGPUError, OSError):
            self._signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s`. Returns whether the process has ended."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the process and its session, if it still runs."""
        if self.alive:
            self._signal(signal.SIGKILL)
            self.wait(5.0)

    def tail(self) -> str:
        """Return the last lines that the process printed."""
        try:
            with (self.home / OUTPUT_FILE).open("rb") as output:
                output.seek(max(0, os.fstat(output.fileno()).st_size - TAIL_BYTES))
                lines = output.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])

    def url(self) -> str:
        """Return the address of its page; empty until the process has printed it.

        The process chooses a free port by itself. A port that the demo chose could be in use by the
        time the process binds it.
        """
        try:
            with (self.home / OUTPUT_FILE).open("rb") as output:
                printed = _URL.search(output.read(URL_BYTES).decode("utf-8", "replace"))
        except OSError:
            return ""
        return printed.group() if printed else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            # The process is not reaped yet, so no other process has its number.
            os.killpg(self._process.pid, number)


def _toml(settings: Mapping[str, Mapping[str, object]]) -> str:
    lines: list[str] = []
    for section, table in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"
