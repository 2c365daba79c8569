"""One child process as the node sees it: spawned, talked to, watched, ended.

It is spawned and never forked (threads and CUDA do not survive a fork), in its own session (Ctrl-C
at the terminal is for the node), and from the calling thread: trio's own process functions spawn
from a helper thread, whose end would be taken for the parent's death by the kernel.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import trio

import daemon
from daemon.children import memory
from daemon.children.descendants import MARK, end_marked
from daemon.children.frames import Deframer
from protocol.status.figures import clean

# From the end of the conversation to the exit, so that the true exit status is seen; then it is
# killed.
EXIT_GRACE_S = 5.0
# For a guard to end what it guards: it gives up after 5 s.
GUARD_S = 6.0
STDERR_GRACE_S = 1.0  # for last words still in the pipe
# A crash tells its threads' frames: of two threads about 25.
KEPT_LINES = 40
KEPT_LINE_CHARS = 500
KEPT_LINE_BYTES = 4 * KEPT_LINE_CHARS  # UTF-8 has at most four bytes a character
# A progress bar writes ten lines a second; a task that prints each sample must neither fill the log
# nor take the node's time.
LINES_PER_S, LINES_AT_ONCE = 20.0, 200.0
_READ_BYTES = 65536
_LINE_ENDS = re.compile(rb"[\r\n]+")  # progress bars end their lines with \r


R = TypeVar("R")


class LineRation:
    """How many lines of a child's output may be logged by now. Pure."""

    def __init__(self, now: float) -> None:
        self._left, self._at = LINES_AT_ONCE, now
        self.left_out = 0  # since somebody looked last

    def allows(self, now: float) -> bool:
        """Whether one more line may be logged; counts those that may not."""
        self._left = min(LINES_AT_ONCE, self._left + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._left < 1:
            self.left_out += 1
            return False
        self._left -= 1
        return True


class ChildProcess(Generic[R]):
    """A started child that says `R`s.

    `kill` may be called at any time; `ended` must be awaited before the object is dropped.
    """

    def __init__(
        self,
        module: str,
        decode: Callable[[bytes], R],
        log: logging.Logger,
        *,
        environment: Mapping[str, str],
        arguments: Sequence[str] = (),
        guarded: bool = False,
    ) -> None:
        """Spawns `python -P -m MODULE SOCKET_FD MEMORY_FD PARENT_PID ARGUMENTS`: a constructor that
        acts, because there is no child that was not started.

        `decode` makes reports of what it says and raises `msgspec.DecodeError` or `ValueError`;
        `log` gets its stderr.

        A `guarded` child is started by `guard.py`, whose process is the one that is seen here: it
        ends as the child does.
        """
        self._guarded, self._mark = guarded, secrets.token_hex(16)
        command = ["daemon.children.guard", module] if guarded else [module]
        self._decode, self._log = decode, log
        ours, theirs = socket.socketpair()
        errors_read, errors_write = os.pipe2(os.O_CLOEXEC)
        self.memory_fd = memory.create()
        try:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", command[0]),
                    *(str(theirs.fileno()), str(self.memory_fd), str(os.getpid())),
                    *(*command[1:], *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors_write,
                pass_fds=(theirs.fileno(), self.memory_fd),
                start_new_session=True,
                env=_environment({**environment, MARK: self._mark}),
                cwd=_directory(),
            )
        except OSError:
            ours.close()
            os.close(errors_read)
            os.close(self.memory_fd)
            raise
        finally:
            theirs.close()
            os.close(errors_write)
        self.pid = self._popen.pid
        self._exited = os.pidfd_open(self.pid)
        self._link = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._errors = trio.lowlevel.FdStream(errors_read)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._killed_because = ""
        self.reaped = False

    async def send(self, framed: bytes) -> None:
        """Send a message behind its length.

        Raises `trio.BrokenResourceError` when it is gone. Must not be cancelled half way: shield
        it.
        """
        await self._link.send_all(framed)

    async def reports(self) -> AsyncIterator[R]:
        """What it says, until it is gone or says something that is no report (then it is killed)."""
        deframer = Deframer()
        while True:
            try:
                data = await self._link.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            try:
                reports = [self._decode(body) for body in deframer.feed(data)]
            except (msgspec.DecodeError, ValueError) as error:
                self.kill(f"it said something that is no report: {error}")
                return
            for report in reports:
                yield report

    async def hang_up_when_gone(self) -> None:
        """End `reports` when the process is gone, after what it said: a child that it forked may
        hold its end of the conversation open.
        """
        exited = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(exited)
        finally:
            os.close(exited)
        with suppress(OSError):
            self._link.socket.shutdown(socket.SHUT_RD)

    async def listen_to_errors(self) -> None:
        """Log its output line by line, up to a rate, and keep the last lines.

        Ends when nobody can write there any more.
        """
        rest = b""
        ration = LineRation(trio.current_time())
        while True:
            try:
                data = await self._errors.receive_some(_READ_BYTES)
            except trio.ClosedResourceError:
                return
            *lines, rest = _LINE_ENDS.split(rest + data)
            if not data and rest:
                lines, rest = [rest], b""
            rest = rest[-KEPT_LINE_BYTES:]
            for line in lines:
                text = clean(
                    line[:KEPT_LINE_BYTES].decode(errors="replace").rstrip(), KEPT_LINE_CHARS
                )
                if not text:
                    continue
                self._lines.append(text)
                if ration.allows(trio.current_time()):
                    if ration.left_out:
                        self._log.warning(
                            "%d lines of output came too fast and are left out", ration.left_out
                        )
                        ration.left_out = 0
                    self._log.info("%s", text)
            if not data:
                return

    def kill(self, because: str) -> None:
        """End it and everything it started, now. The first reason given counts."""
        self._killed_because = self._killed_because or because
        self._kill_group()

    async def ended(self) -> None:
        """Wait for its exit, help after a grace, reap it and close everything but stderr.

        Not to be cancelled: call it shielded.
        """
        with trio.move_on_after(EXIT_GRACE_S) as grace:
            await trio.lowlevel.wait_readable(self._exited)
        if grace.cancelled_caught:
            self.kill("it closed its connection and did not exit")
            with trio.move_on_after(GUARD_S):
                await trio.lowlevel.wait_readable(self._exited)
            os.killpg(self.pid, signal.SIGKILL)
            await trio.lowlevel.wait_readable(self._exited)
        # Whatever it had started; not reaped, so the number is still its own.
        os.killpg(self.pid, signal.SIGKILL)
        end_marked(self._mark)
        self._popen.wait()
        self.reaped = True
        os.close(self._exited)
        os.close(self.memory_fd)
        await trio.aclose_forcefully(self._link)

    async def close_errors(self) -> None:
        """After `ended`: a descendant that left its group could hold the pipe open, so its end is
        not waited for.
        """
        await self._errors.aclose()

    def _kill_group(self) -> None:
        if self._popen.returncode is not None:  # reaped: the number may be another's
            return
        if self._guarded:  # it ends the rest, and then itself
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)
        else:
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def code(self) -> int | None:
        """Its exit status as `subprocess` has it, after `ended`."""
        return self._popen.returncode

    @property
    def was_killed(self) -> bool:
        """Whether this side ended it."""
        return bool(self._killed_because)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of its output."""
        return tuple(self._lines)

    def why(self) -> str:
        """Why it ended, in one sentence, after `ended`."""
        code = self._popen.returncode
        last = self._lines[-1].strip() if self._lines else ""
        if self._killed_because and code == -signal.SIGKILL:
            return f"it was ended: {self._killed_because}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = (
                " (when memory runs out, this is what the system does)" if name == "SIGKILL" else ""
            )
            return f"it was ended by {name}{hint}" + (f"; it last said: {last}" if last else "")
        return f"it exited with status {code}" + (f": {last}" if last else "")


def _directory() -> str | None:
    """Ours (None) while it exists.

    Without one MKL finds no libraries of its own, and torch ends.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        return "/"
    return None


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, with our packages importable whatever the working directory (-P keeps that off the
    path).
    """
    root = str(Path(next(iter(daemon.__path__))).resolve().parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **more}
