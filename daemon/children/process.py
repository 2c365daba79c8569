"""Spawns, watches and ends one child process, on the node's side.

The child is spawned and not forked, because threads and CUDA do not survive a fork. It has its own
session, so that Ctrl-C at the terminal only reaches the node. It is spawned from the calling
thread: trio spawns from a helper thread, and the kernel would treat the end of that thread as the
death of the parent.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
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
from daemon.children.line_log import LineLog

# How long a child may take to exit after it has closed the link. After that it is killed, and its
# own exit status is lost.
EXIT_GRACE_S = 5.0
# How long a guard may take to end its child. It gives up after 5 s.
GUARD_S = 6.0
# How long to read the last lines in the pipe.
STDERR_GRACE_S = 1.0
_READ_BYTES = 65536

R = TypeVar("R")


class ChildProcess(Generic[R]):
    """A running child that sends reports of type `R`.

    `kill` may be called at any time. Await `ended` before you drop the object.
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
        """Spawn `python -P -m MODULE SOCKET_FD MEMORY_FD PARENT_PID ARGUMENTS`.

        Args:
            module: The module of the child.
            decode: Decodes a report; raises `msgspec.DecodeError` or `ValueError`.
            log: Gets the lines of the child's stderr.
            environment: Variables to add to this process's environment.
            arguments: Further arguments.
            guarded: Start the child under `guard.py`. This object then sees the guard's process,
                which ends with the child's status.
        """
        self._guarded, self._mark = guarded, secrets.token_hex(16)
        command = ["daemon.children.guard", module] if guarded else [module]
        self._decode = decode
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
        self._output = LineLog(errors_read, log)
        self._killed_because = ""
        self.reaped = False

    async def send(self, framed: bytes) -> None:
        """Send a framed message. Shield the call: a cancelled send breaks the link.

        Raises `trio.BrokenResourceError` when the child is gone.
        """
        await self._link.send_all(framed)

    async def reports(self) -> AsyncIterator[R]:
        """Yield the child's reports until it is gone. A malformed report kills the child."""
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
                self.kill(f"it sent a malformed report: {error}")
                return
            for report in reports:
                yield report

    async def hang_up_when_gone(self) -> None:
        """End `reports` when the process is gone, after its last report.

        A process that the child forked may hold the child's end of the link open.
        """
        exited = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(exited)
        finally:
            os.close(exited)
        with suppress(OSError):
            self._link.socket.shutdown(socket.SHUT_RD)

    async def listen_to_errors(self) -> None:
        """Log the child's output line by line, up to a rate, and keep the last lines.

        Returns when no process can write there any more.
        """
        await self._output.run()

    def kill(self, because: str) -> None:
        """Kill the child and its group at once. The first reason counts."""
        self._killed_because = self._killed_because or because
        self._kill_group()

    async def ended(self) -> None:
        """Wait for the child's exit, reap it, and close everything but stderr.

        Kills the child after `EXIT_GRACE_S`. Call this shielded.
        """
        with trio.move_on_after(EXIT_GRACE_S) as grace:
            await trio.lowlevel.wait_readable(self._exited)
        if grace.cancelled_caught:
            self.kill("it closed its connection and did not exit")
            with trio.move_on_after(GUARD_S):
                await trio.lowlevel.wait_readable(self._exited)
            os.killpg(self.pid, signal.SIGKILL)
            await trio.lowlevel.wait_readable(self._exited)
        # End the rest of the group. The child is not reaped, so its id is still in use.
        os.killpg(self.pid, signal.SIGKILL)
        end_marked(self._mark)
        self._popen.wait()
        self.reaped = True
        os.close(self._exited)
        os.close(self.memory_fd)
        await trio.aclose_forcefully(self._link)

    async def close_errors(self) -> None:
        """Close stderr, after `ended`.

        A descendant that has left the group may hold the pipe open, so this does not wait for it.
        """
        await self._output.close()

    def _kill_group(self) -> None:
        # Once the child is reaped, its id may be another process's.
        if self._popen.returncode is not None:
            return
        # A guard ends its child, and then itself.
        if self._guarded:
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)
        else:
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def code(self) -> int | None:
        """The exit status as in `subprocess`, after `ended`."""
        return self._popen.returncode

    @property
    def was_killed(self) -> bool:
        """Whether this process killed the child."""
        return bool(self._killed_because)

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of its output."""
        return tuple(self._output.last)

    def why(self) -> str:
        """Return why the child ended, in one sentence, after `ended`."""
        code = self._popen.returncode
        lines = self.last_lines
        last = lines[-1].strip() if lines else ""
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
    """Return the child's working directory: this process's (None), or "/" if that was removed.

    Without a working directory, MKL does not find its libraries, and torch ends the process.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        return "/"
    return None


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `more`, and with our packages importable.

    -P keeps the working directory off the import path.
    """
    root = str(Path(next(iter(daemon.__path__))).resolve().parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), **more}
