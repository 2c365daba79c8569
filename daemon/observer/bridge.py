"""The bridge: the only object that the trio side and the web thread share.

Trio publishes immutable `Status` records. The web thread renders the newest one when a reader asks,
at most once a second, and answers every reader from those bytes. While nobody asks, nothing is
rendered.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import trio

from daemon.observer.api.control import Control
from daemon.observer.api.resources import Rewards
from daemon.observer.endpoints import HttpEndpoint
from daemon.observer.history.event_feed import EventFeed
from daemon.observer.history.history_store import HistoryStore
from protocol.digest import digest
from protocol.status import Status, StatusState, status_at

# Bodies of one snapshot that are kept: every path, and the first pages of lists.
MAX_KEPT = 64
# The greatest age of an answer while a newer status is published.
REFRESH_S = 1.0

_encode = msgspec.json.Encoder().encode


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One status, and its bytes for each path that was asked for.

    `etag` is weak: it stands for everything but `as_of`.
    """

    source: Status
    etag: str
    rendered: dict[str, bytes]

    def body(self, endpoint: HttpEndpoint) -> bytes:
        """Return the bytes of an endpoint, rendered at the first call."""
        known = self.rendered.get(endpoint.path)
        if known is None:
            known = self.rendered[endpoint.path] = endpoint.render(self.source)
        return known

    def page(self, target: str) -> bytes | None:
        """Return the page of a list that was kept for a path and query."""
        return self.rendered.get(target)

    def keep_page(self, target: str, body: bytes) -> None:
        """Keep a page of a list for the next reader, unless many are kept."""
        if len(self.rendered) < MAX_KEPT:
            self.rendered[target] = body


def render(status: Status) -> Snapshot:
    """Return the snapshot of a status. Each body takes some milliseconds when it is asked for."""
    timeless = _encode(msgspec.structs.replace(status, as_of=0.0))
    return Snapshot(source=status, etag=f'W/"{digest(timeless).hex()[:32]}"', rendered={})


class OwnerView(msgspec.Struct, frozen=True, kw_only=True):
    """What the run's owner alone sees: the owner's invitation, and the key that shows it."""

    key: str
    # What a friend types.
    command: str
    # What the invitation grants, in one line.
    terms: str


class Bridge:
    """Carries the newest status from the trio side to the web thread.

    `publish` never waits and may be called from any thread. `snapshot` never shows a status older
    than `REFRESH_S` while a newer one is published. `snapshot` and `silent_s` belong to the web
    thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        # One reference that is replaced whole, so that no lock is needed.
        self._published: tuple[Status, float] = (status_at(StatusState(), time.time()), clock())
        self._snapshot: Snapshot | None = None
        self._rendered_at = 0.0
        # Replaced whole; None where the page shows no invitation.
        self.owner_view: OwnerView | None = None
        # Ids of events begin at the time in milliseconds, so that they grow over restarts.
        self.feed = EventFeed(first_id=time.time_ns() // 1_000_000)
        # Replaced whole; None where no history is kept.
        self.store: HistoryStore | None = None
        # Replaced whole; None until the run is known.
        self.rewards: Rewards | None = None
        # Replaced whole; None until the run is known, and where it has no owner.
        self.control: Control | None = None

    def publish(self, status: Status) -> None:
        """Make `status` the newest one."""
        self._published = (status, self._clock())

    @property
    def silent_s(self) -> float:
        """Seconds since the last status was published."""
        return self._clock() - self._published[1]

    def snapshot(self) -> Snapshot:
        """The newest status rendered, or the last snapshot while it is younger than `REFRESH_S`."""
        status, _ = self._published
        known = self._snapshot
        if known is not None and (
            known.source is status or self._clock() - self._rendered_at < REFRESH_S
        ):
            return known
        self._snapshot = render(status)
        self._rendered_at = self._clock()
        return self._snapshot


async def publish_regularly(
    bridge: Bridge, source: Callable[[], Status], interval_s: float = REFRESH_S
) -> None:
    """Publish the status that `source` returns until cancelled. A task of the trio side."""
    while True:
        bridge.publish(source())
        await trio.sleep(interval_s)
