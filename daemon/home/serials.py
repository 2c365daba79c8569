"""Numbers that grow for as long as a home exists: peers take the greater of two numbers of one key
for the newer.

A number is the wall clock in nanoseconds where that grows, else the last number plus one. A clock
that is set back between two lives, or during one, therefore changes nothing. The home keeps a bound
(`<home>/serials`) that no number has passed. A life begins above the bound of the life before, and
writes a new bound before it gives a number out. A clean stop writes back what was used: a home that
is restarted often does not run ahead of the clock, where it would look newer than what it is not.
Numbers that must be greater than all of an earlier life start at `first`.

What this cannot know: a home that was restored from a backup has the bound of that day. There the
wall clock alone is greater than what was used since. Each life therefore begins a random distance
above its bound: two lives with one bound use different numbers, and neither number looks like an
answer to the other (`network/peers/own_record.py`).
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
# What a life may give out before it writes again, and what a killed life leaves unused: three
# renewals, since a slow disk may miss one or two.
AHEAD_NS = 3 * 60 * 10**9
# What a clean stop leaves unused. Gossip counts its messages up from one number of ours, and no
# node sends a billion messages that are not dated by the clock.
MARGIN_NS = 10**9
# A life uses about a thousand numbers: two lives with one bound meet once in a million times.
SPREAD_NS = 10**9
# The year 2200. A clock that is later is broken: its numbers would not fit into the 63 bits that
# peers read.
LATEST_NS = 7_258_118_400 * 10**9

_log = logging.getLogger(__name__)


class Serials:
    """One home's numbers, for one process at a time: the caller holds the home's lock.

    Without a path nothing is kept.
    """

    def __init__(self, path: Path | None, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """Reads the bound of the life before, and makes a new one durable. Raises `DiskFull`."""
        self._path, self._wall_ns = path, wall_ns
        kept = _read(path) if path is not None else 0
        self.first = max(kept + 1, self._wall()) + secrets.randbelow(SPREAD_NS)
        self._last = self.first - 1
        self._bound = kept
        self.extend()

    def next(self) -> int:
        """A number that is greater than every other of this home."""
        wall = self._wall()
        self._last = wall if self._last < wall < self._bound else self._last + 1
        return self._last

    def passed(self, number: int) -> None:
        """Another life of this home used `number`: what comes next is greater."""
        if number < LATEST_NS + AHEAD_NS:
            self._last = max(self._last, number)
            self._bound = max(self._bound, number)

    def extend(self) -> None:
        """Make the next bound durable.

        Raises `DiskFull`; then numbers grow one by one and stay below the old bound for 100 years.
        """
        bound = max(self._last + 1, self._wall()) + AHEAD_NS
        if self._path is not None:
            write_atomically(self._path, [memoryview(f"{bound}\n".encode())])
        self._bound = bound

    def close(self) -> None:
        """Write back how far this life went: after its last number, at a clean stop.

        Raises `DiskFull`, which costs nothing.
        """
        bound = min(self._bound, self._last + MARGIN_NS)
        if self._path is not None:
            write_atomically(self._path, [memoryview(f"{bound}\n".encode())])
        self._bound = bound

    async def keep(self) -> None:
        """Extend the bound in time. Until cancelled."""
        failing = False
        while True:
            await trio.sleep(RENEW_S)
            try:
                await in_thread(self.extend)
                failing = False
            except DiskFull as full:
                if not failing:
                    _log.warning("the home's serial numbers are not kept: %s", full)
                failing = True

    def _wall(self) -> int:
        return min(self._wall_ns(), LATEST_NS)


def _read(path: Path) -> int:
    """The bound on disk; 0 where it does not exist or is damaged: then the wall clock has to do."""
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
