"""Members as processes: started, struck, resumed, restarted, and read from.

Whatever happens to the harness, no process survives it.

    async with cohort_of(4, root, manifest, elements) as cohort:
        for member in cohort.members:
            await cohort.start(member)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from protocol.errors import Unreachable, UserError
from protocol.identity import PeerId
from protocol.run.manifest import SignedManifest
from simulator.harness.wire import (
    MAX_LINE_BYTES,
    AnyCommand,
    AnyLine,
    Certified,
    Entered,
    MemberUp,
    StrikeReport,
    decode_line,
    encode,
)

OUTPUT_FILE = "output.log"
MANIFEST_FILE = "manifest.bin"
# Until a member listens: 1.5 s on an idle machine, mostly for imports.
UP_S = 60.0
# Until a killed process is gone.
GONE_S = 5.0
LOG_TAIL_BYTES = 3000


class MemberProcess:
    """One member. `lines` are those of all its lives; the current life starts at `life_began`."""

    def __init__(self, index: int, home: Path) -> None:
        self.index = index
        self.home = home
        self.life = -1
        self.peer: PeerId = ""
        self.address = ""
        self.lines: list[AnyLine] = []
        self.life_began = 0
        # The last certificate whose state the member reports to hold, in this life.
        self.tip: Certified | None = None
        self.phase = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def tail(self) -> str:
        """The end of what it printed besides its lines."""
        try:
            data = (self.home / OUTPUT_FILE).read_bytes()
        except OSError:
            return ""
        return data[-LOG_TAIL_BYTES:].decode("utf-8", "replace")


class Cohort:
    """All members of one run."""

    def __init__(
        self, root: Path, signed: SignedManifest, elements: int, count: int, nursery: trio.Nursery
    ) -> None:
        self.signed, self.elements = signed, elements
        self.members = [MemberProcess(index, root / f"member-{index}") for index in range(count)]
        # Lines that `drain` has not returned yet.
        self.heard: list[tuple[int, AnyLine]] = []
        self._root, self._nursery = root, nursery
        self._news = trio.Event()
        (root / MANIFEST_FILE).write_bytes(msgspec.msgpack.encode(signed))

    # ---------------------------------------------------------------- lives

    async def start(self, member: MemberProcess, *extra: str, prefix: Sequence[str] = ()) -> None:
        """Start a life of a member and wait until it listens.

        The member joins those that are up. `prefix` is a command that runs the member's command
        (`nsenter ...`).
        """
        member.home.mkdir(mode=0o700, exist_ok=True)
        member.life += 1
        member.life_began = len(member.lines)
        member.tip = None
        member.phase = ""
        member.stopped = False
        joins = [
            part
            for other in self.members
            if other.alive and other.address and other is not member
            for part in ("--join", other.address)
        ]
        command = [
            sys.executable,
            "-m",
            "simulator.harness.member",
            "--home",
            str(member.home),
            "--manifest",
            str(self._root / MANIFEST_FILE),
        ]
        command += [
            "--index",
            str(member.index),
            "--life",
            str(member.life),
            "--elements",
            str(self.elements),
            *joins,
            *extra,
        ]
        with (member.home / OUTPUT_FILE).open("ab") as output:
            # The kernel ends a member when the *thread* that started it ends, so this thread starts
            # it.
            member.process = subprocess.Popen(  # noqa: ASYNC220
                [*prefix, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        self._nursery.start_soon(self._listen, member, member.process)
        await self.until(
            lambda: any(isinstance(line, MemberUp) for line in self.lines_of(member)),
            f"member {member.index} listens",
            UP_S,
        )

    async def _listen(self, member: MemberProcess, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        buffer = b""
        async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as pipe:
            while data := await pipe.receive_some(MAX_LINE_BYTES):
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    self._hear(member, decode_line(line))
        self._wake()

    def _hear(self, member: MemberProcess, line: AnyLine) -> None:
        match line:
            case MemberUp():
                member.peer, member.address = line.peer, line.address
            case Certified() if line.state:
                member.tip = line
            case Entered():
                member.phase = line.phase
            case StrikeReport(kind="stop"):
                member.stopped = True
            case _:
                pass
        member.lines.append(line)
        self.heard.append((member.index, line))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def send(self, member: MemberProcess, command: AnyCommand) -> None:
        """Send a command: a line in a pipe, read when the member gets to it."""
        assert member.process is not None
        assert member.process.stdin is not None
        os.write(member.process.stdin.fileno(), encode(command))

    def wake(self, member: MemberProcess) -> None:
        """Resume a stopped member."""
        if member.alive:
            os.kill(member.pid, signal.SIGCONT)
        member.stopped = False

    def end(self, member: MemberProcess) -> None:
        """Kill a member and wait for its end."""
        process = member.process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait(GONE_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    # ---------------------------------------------------------------- lines

    def lines_of(self, member: MemberProcess) -> list[AnyLine]:
        """The lines of the member's current life."""
        return member.lines[member.life_began :]

    def drain(self) -> list[tuple[int, AnyLine]]:
        """The lines of all members since the last call, in order of time."""
        heard, self.heard = self.heard, []
        return sorted(heard, key=lambda one: one[1].at_s)

    async def until(self, happened: Callable[[], object], what: str, limit_s: float) -> None:
        """Wait for lines to make `happened` true.

        Raises:
            Unreachable: When they do not in time, or when a member dies without a strike.
        """
        with trio.move_on_after(limit_s):
            while not happened():
                for member in self.members:
                    if (
                        member.process is not None
                        and not member.alive
                        and not any(
                            isinstance(line, StrikeReport) for line in self.lines_of(member)
                        )
                    ):
                        raise Unreachable(
                            f"member {member.index} died while waiting until "
                            f"{what}:\n{member.tail()}"
                        )
                with trio.move_on_after(1.0):  # A death writes no line.
                    await self._news.wait()
            return
        where = ", ".join(
            f"{m.index}: {m.phase} after certificate {m.tip.number if m.tip else 0}"
            for m in self.members
        )
        raise Unreachable(f"not within {limit_s:g} s: {what} ({where})")


@asynccontextmanager
async def cohort_of(
    count: int, root: Path, signed: SignedManifest, elements: int
) -> AsyncIterator[Cohort]:
    """A cohort, not started. All its processes are gone when the block ends."""
    if not sys.platform.startswith("linux"):
        raise UserError(
            "PLATFORM",
            "Real members can be put under fault on Linux only.",
            why="prctl(2) ends them with their parent",
        )
    async with trio.open_nursery() as nursery:
        cohort = Cohort(root, signed, elements, count, nursery)
        try:
            yield cohort
        finally:
            for member in cohort.members:
                cohort.end(member)
            nursery.cancel_scope.cancel()
