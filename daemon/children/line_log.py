"""Logs what a child process prints, line by line and up to a rate, and keeps the last lines."""

from __future__ import annotations

import logging
import re
from collections import deque

import trio

from protocol.status.figures import clean

# A crash prints the frames of its threads, about 25 lines for two threads.
KEPT_LINES = 40
KEPT_LINE_CHARS = 500
# A character has at most four bytes in UTF-8.
KEPT_LINE_BYTES = 4 * KEPT_LINE_CHARS
# A progress bar writes ten lines a second. A task that prints each sample must neither fill the log
# nor slow the node down.
LINES_PER_S, LINES_AT_ONCE = 20.0, 200.0
_READ_BYTES = 65536
# Progress bars end their lines with \r.
_LINE_ENDS = re.compile(rb"[\r\n]+")


class LineRation:
    """Limits how many lines of a child's output are logged. Pure."""

    def __init__(self, now: float) -> None:
        self._left, self._at = LINES_AT_ONCE, now
        # The lines that were left out. The reader resets the count.
        self.left_out = 0

    def allows(self, now: float) -> bool:
        """Return whether one more line may be logged, and count it in `left_out` if not."""
        self._left = min(LINES_AT_ONCE, self._left + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._left < 1:
            self.left_out += 1
            return False
        self._left -= 1
        return True


class LineLog:
    """Reads one pipe. `last` holds the last lines, oldest first."""

    def __init__(self, fd: int, log: logging.Logger) -> None:
        """Own the reading end `fd`, until `close`."""
        self._stream = trio.lowlevel.FdStream(fd)
        self._log = log
        self.last: deque[str] = deque(maxlen=KEPT_LINES)

    async def run(self) -> None:
        """Read until no process can write there any more, or until `close`."""
        rest = b""
        ration = LineRation(trio.current_time())
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except trio.ClosedResourceError:
                return
            *lines, rest = _LINE_ENDS.split(rest + data)
            if not data and rest:
                lines, rest = [rest], b""
            rest = rest[-KEPT_LINE_BYTES:]
            for line in lines:
                self._add(line, ration)
            if not data:
                return

    def _add(self, line: bytes, ration: LineRation) -> None:
        text = clean(line[:KEPT_LINE_BYTES].decode(errors="replace").rstrip(), KEPT_LINE_CHARS)
        if not text:
            return
        self.last.append(text)
        if not ration.allows(trio.current_time()):
            return
        if ration.left_out:
            self._log.warning("%d lines of output came too fast and are left out", ration.left_out)
            ration.left_out = 0
        self._log.info("%s", text)

    async def close(self) -> None:
        """Close the pipe. A process that still holds its other end gets an error when it writes."""
        await self._stream.aclose()
