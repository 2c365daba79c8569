"""Records a node's events: dates them, folds them into the status, and writes them to disk.

`record` never blocks and never fails. Events wait in memory until `run` appends the durable ones to
a file of JSON lines. The file is for people and for later use. A node's status is empty at each
start.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import trio
from msgspec.structs import replace

from daemon.home.pinned_directory import PinnedDirectory
from protocol.certificates.certificate import OpenCertificate
from protocol.identity import PeerId
from protocol.journal import JournalEvent, RoundCertified, Warned, decode_event, encode_event
from protocol.status import RoundSummary, Status, StatusState, fold, status_at

# A crash loses the events of this time.
FLUSH_INTERVAL_S = 1.0
# About 15,000 rounds of a small swarm, with all of their phases.
ROTATE_BYTES = 32 << 20
KEPT_OLD = 2
# Events that wait for a disk that refuses them, about 8 MB. The oldest are dropped first.
MAX_WAITING = 20_000
# Dates of certificates that `certified` has not used yet, about 30 MB. The journal and its older
# files hold fewer rounds.
MAX_DATES = 1 << 17

_log = logging.getLogger(__name__)

Listener = Callable[[JournalEvent], None]


class Journal:
    """One node's journal. Only the thread that runs trio may use it.

    Without a path, nothing is written and no thread is used.
    """

    def __init__(self, path: Path | None, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` returns unix seconds. Opens no file."""
        self._path = path
        self._folder: PinnedDirectory | None = None
        self._wall_clock = wall_clock
        self._state = StatusState()
        self._listeners: list[Listener] = []
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._failing = False
        self._seen_at: OrderedDict[str, float] = OrderedDict()

    def record(self, event: JournalEvent, at: float | None = None) -> None:
        """Record an event, dated now, or `at` where it is known to be older.

        The event is folded into the status, then queued for the disk if it is durable, then given
        to the listeners.
        """
        stamped = replace(event, at=self._wall_clock() if at is None else at)
        self._state = fold(self._state, stamped)
        if isinstance(stamped, RoundCertified):
            self._seen_at.setdefault(stamped.certificate, stamped.at)
            while len(self._seen_at) > MAX_DATES:
                self._seen_at.popitem(last=False)
        if self._path is not None and stamped.durable:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(encode_event(stamped))
        for listener in self._listeners:
            listener(stamped)

    def status(self) -> Status:
        """Return the current status."""
        return status_at(self._state, self._wall_clock())

    def newest_round(self) -> RoundSummary | None:
        """Return the round, or the failed try, that was folded last; None before the first."""
        return self._state.rounds[0] if self._state.rounds else None

    def name_of(self, peer: PeerId) -> str:
        """Return a peer's name for a sentence."""
        return self._state.name_of(peer)

    def reputation(self, peer: PeerId) -> int | None:
        """Return a peer's reputation, 0 to 1,000; None while the peer is new."""
        return self._state.reputations.of(peer, self._wall_clock()).figure

    def remember(self, seen_at: Mapping[str, float]) -> None:
        """Add the dates at which an earlier process saw certificates.

        Dates are unix seconds, by the certificate's hash in hex. Reputations cover a week, which is
        longer than a process may run.
        """
        self._seen_at.update(seen_at)

    def certified(self, certificates: Iterable[OpenCertificate]) -> None:
        """Count certificates of the lineage for reputations. Skips those without a date."""
        for one in certificates:
            at = self._seen_at.pop(one.hash.hex(), None)
            if at is not None:
                plan = one.plan
                counted = {
                    (plan.members[i], plan.offers[i].seq): plan.offers[i].samples
                    for i in one.contributors
                }
                self._state.reputations.saw(at, one.outcome.number, counted)

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` with each dated event from now on.

        It must neither block nor record events. `record` raises what it raises.
        """
        self._listeners.append(listener)

    def forget_file(self) -> None:
        """Stop writing: the file's path no longer belongs to this node."""
        self._path = None
        self._waiting.clear()

    async def run(self) -> None:
        """Write to disk every second until cancelled, and once more at the end."""
        if self._path is None:
            await trio.sleep_forever()
        try:
            while True:
                await trio.sleep(FLUSH_INTERVAL_S)
                await self._flush_in_thread()
        finally:
            # No write is under way: cancellation waits for the thread.
            self.flush()

    def flush(self) -> None:
        """Write the waiting events, now and in this thread."""
        lines = self._drain()
        if lines:
            self._settle(lines, self._append(lines))

    async def _flush_in_thread(self) -> None:
        lines = self._drain()
        if lines:
            # Let the write end, so that no line is written twice or in part.
            with trio.CancelScope(shield=True):
                failure = await trio.to_thread.run_sync(self._append, lines)
            self._settle(lines, failure)

    def _drain(self) -> list[bytes]:
        lines = list(self._waiting)
        self._waiting.clear()
        return lines

    def _settle(self, lines: list[bytes], failure: OSError | None) -> None:
        """Put the lines of a failed write back, and warn once when the disk begins to refuse."""
        if self._path is None:
            return
        if failure is not None:
            surplus = max(0, len(lines) + len(self._waiting) - MAX_WAITING)
            self._lost += surplus
            self._waiting.extendleft(reversed(lines[surplus:]))
            if not self._failing:
                self._failing = True
                self._warn(
                    f"The journal {self._path} cannot be written ({failure.strerror or failure})."
                    " Training continues; events wait in memory."
                )
        elif self._failing:
            self._failing = False
            missing = f"{self._lost} events are missing" if self._lost else "nothing is missing"
            self._lost = 0
            self._warn(f"The journal {self._path} is written again; {missing}.")

    def _warn(self, message: str) -> None:
        _log.warning("%s", message)
        self.record(Warned(code="JOURNAL", message=message))

    def _append(self, lines: list[bytes]) -> OSError | None:
        """Append the lines, all or none. Returns why the disk refused, or None."""
        if self._path is None:
            return None
        data = b"\n".join(lines) + b"\n"
        try:
            if self._folder is None:
                self._folder = PinnedDirectory(self._path.parent)
            self._folder.check()
            self._rotate(len(data))
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                before = os.fstat(handle).st_size
                if before and os.pread(handle, 1, before - 1) != b"\n":
                    # A crash has cut the last line. Start a new one, so that the next event stays
                    # readable.
                    data = b"\n" + data
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(handle, view) :]
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(handle, before)
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            return error
        return None

    def _rotate(self, more: int) -> None:
        assert self._path is not None
        try:
            if self._path.stat().st_size + more <= ROTATE_BYTES:
                return
        except FileNotFoundError:
            return
        names = [
            self._path,
            *(self._path.with_name(f"{self._path.name}.{age}") for age in range(1, KEPT_OLD + 1)),
        ]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                os.replace(newer, older)


def dates_of_certificates(path: Path, since_s: float) -> dict[str, float]:
    """Return when each certificate was first seen, from the journal and its older files.

    Dates are unix seconds from `since_s` on, by the certificate's hash in hex, oldest first.
    Unreadable lines are skipped.
    """
    dates: dict[str, float] = {}
    for file in (*(path.with_name(f"{path.name}.{age}") for age in range(KEPT_OLD, 0, -1)), path):
        try:
            with file.open("rb") as lines:
                for line in lines:
                    if b'"RoundCertified"' not in line:
                        continue
                    try:
                        event = decode_event(line)
                    except (msgspec.DecodeError, ValueError):
                        continue
                    if isinstance(event, RoundCertified) and event.at >= since_s:
                        dates.setdefault(event.certificate, event.at)
        except OSError:
            # The file does not exist yet.
            continue

    return dates
