"""The bridge: the one thing that the trio side and the web thread share.

Trio publishes immutable `Status` records; the web thread renders the newest one when somebody asks,
at most once a second, and answers everybody from those bytes. So a thousand readers cost what one
costs, and nobody costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import trio

from daemon.observer.metrics import metrics_text
from daemon.observer.page import page_html
from protocol.digest import digest
from protocol.status import PeerSummary, RoundSummary, Status, StatusState, status_at

# How old an answer may be while something newer was published.
REFRESH_S = 1.0
# The trio side publishes every second; silent this long it hangs, and /healthz says so.
SILENT_S = 10.0

_encode = msgspec.json.Encoder().encode


class PeersBody(msgspec.Struct, frozen=True, kw_only=True):
    """`/api/v1/peers`"""

    as_of: float
    peers: tuple[PeerSummary, ...]


class RoundsBody(msgspec.Struct, frozen=True, kw_only=True):
    """`/api/v1/rounds`, newest first."""

    as_of: float
    rounds: tuple[RoundSummary, ...]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One status, rendered in every way. `etag` is weak: it stands for everything but `as_of`."""

    source: Status
    etag: str
    page: bytes
    status: bytes
    peers: bytes
    rounds: bytes
    metrics: bytes


def render(status: Status) -> Snapshot:
    """Pure; some milliseconds."""
    timeless = _encode(msgspec.structs.replace(status, as_of=0.0))
    return Snapshot(
        source=status,
        etag=f'W/"{digest(timeless).hex()[:32]}"',
        page=page_html(status).encode(),
        status=_encode(status),
        peers=_encode(PeersBody(as_of=status.as_of, peers=status.peers)),
        rounds=_encode(RoundsBody(as_of=status.as_of, rounds=status.rounds)),
        metrics=metrics_text(status),
    )


class Bridge:
    """Guarantees: `publish` never waits and may be called from any thread; `snapshot` never shows a
    status older than `REFRESH_S` while a newer one was published.

    `snapshot` and `silent_s` belong to the web thread. `clock` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # One reference, replaced whole.
        self._published: tuple[Status, float] = (status_at(StatusState(), time.time()), clock())
        self._snapshot: Snapshot | None = None
        self._rendered_at = 0.0

    def publish(self, status: Status) -> None:
        """From now on this is the newest status."""
        self._published = (status, self._clock())

    @property
    def silent_s(self) -> float:
        """How long nothing was published."""
        return self._clock() - self._published[1]

    def snapshot(self) -> Snapshot:
        """The newest status rendered, or the last one rendered while that is younger than
        `REFRESH_S`.
        """
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
    """Publish what `source` says until cancelled; a task of the trio side."""
    while True:
        bridge.publish(source())
        await trio.sleep(interval_s)
