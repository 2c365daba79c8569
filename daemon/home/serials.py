"""Generates serial numbers that grow for as long as a home exists.

Peers treat the greater of two numbers of one key as the newer. A number is the wall clock in
nanoseconds where that is greater, else the last number plus one. A clock that is set back therefore
has no effect. The file `<home>/serials` holds a bound that no number has passed. Each process
starts above the bound, and writes a new bound before it gives out a number. A clean stop lowers the
bound to the last used number, so that a home with many restarts does not run ahead of the clock.
Numbers that must be greater than those of all earlier processes start at `first`.

A home that was restored from a backup has an old bound, so that only the wall clock is greater than
the numbers used since. Each process therefore starts at a random distance above the bound. Two
processes with one bound use different numbers, and neither number looks like an answer to the other
(`daemon/network/peers/own_record.py`).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import trio

from daemon.disk.atomic import write_atomically
from daemon.system.offload import in_thread
from protocol.ports.disk import DiskFull

SERIALS_FILE = "serials"
RENEW_S = 60.0
# How far the bound is ahead of the clock: three renewals, because a slow disk may miss one or two.
# A killed process leaves these numbers unused.
AHEAD_NS = 3 * 60 * 10**9
# How many numbers a clean stop leaves unused. Gossip counts its messages from one of our numbers,
# and no node sends a billion messages in one process.
MARGIN_NS = 10**9
# A process uses about a thousand numbers, so two processes with one bound collide once in a
# million starts.
SPREAD_NS = 10**9
# The year 2200. A later clock is broken: its numbers would not fit into the 63 bits that peers
# read.
LATEST_NS = 7_258_118_400 * 10**9

_log = logging.getLogger(__name__)


class Serials:
    """One home's serial numbers. The caller holds the home's lock.

    Without a path, the bound is not written.
    """

    def __init__(self, path: Path | None, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """Read the last bound, and make a new one durable. Raises `DiskFull`."""
        self._path, self._wall_ns = path, wall_ns
        kept = _read(path) if path is not None else 0
        self.first = max(kept + 1, self._wall()) + secrets.randbelow(SPREAD_NS)
        self._last = self.first - 1
        self._bound = kept
        self.extend()

    def next(self) -> int:
        """Return a number that is greater than every earlier number of this home."""
        wall = self._wall()
        self._last = wall if self._last < wall < self._bound else self._last + 1
        return self._last

    def passed(self, number: int) -> None:
        """Make the next numbers greater than `number`, which another process with this key used."""
        if number < LATEST_NS + AHEAD_NS:
            self._last = max(self._last, number)
            self._bound = max(self._bound, number)

    def extend(self) -> None:
        """Write the next bound, durable on return.

        Raises `DiskFull`. The numbers then grow one by one, and reach the bound after 100 years.
        """
        bound = max(self._last + 1, self._wall()) + AHEAD_NS
        if self._path is not None:
            write_atomically(self._path, [memoryview(f"{bound}\n".encode())])
        self._bound = bound

    def close(self) -> None:
        """Lower the bound to the last used number, at a clean stop.

        Raises `DiskFull`, which the caller can ignore.
        """
        bound = min(self._bound, self._last + MARGIN_NS)
        if self._path is not None:
            write_atomically(self._path, [memoryview(f"{bound}\n".encode())])
        self._bound = bound

    async def keep(self) -> None:
        """Extend the bound every `RENEW_S`, until cancelled."""
        failing = False
        while True:
            await trio.sleep(RENEW_S)
            try:
                await in_thread(self.extend)
                failing = False
            except DiskFull as full:
                if not failing:
                    _log.warning(
                        "The bound of the home's serial numbers cannot be written: %s", full
                    )
                failing = True

    def _wall(self) -> int:
        return min(self._wall_ns(), LATEST_NS)


def _read(path: Path) -> int:
    """Return the bound on disk; 0 where the file does not exist or is damaged."""

    try:
        text = path.read_bytes()[:32].strip()
    except FileNotFoundError:
        return 0
    except OSError as error:
        _log.warning(
            "%s cannot be read (%s): serial numbers begin at the wall clock", path, error.strerror
        )
        return 0
    if not text.isdigit() or not 0 < int(text) <= LATEST_NS + 2 * AHEAD_NS:
        _log.warning("%s is damaged: serial numbers begin at the wall clock", path)
        return 0
    return int(text)
