"""The endpoints of the web side: one table.

To add an endpoint:

1. Write a function that renders a `Status` as bytes; it must be pure and take a few milliseconds.
2. Add an `HttpEndpoint` to `ENDPOINTS` with its path, content type and that function.
3. Add the path to `test_every_endpoint_answers` in tests/daemon/observer/test_server.py, and to
   docs/operate.md (tests/docs compares).

Each endpoint is rendered at most once for each published status, and at most once a second. All
readers get those bytes, so a thousand readers cost what one costs.

`PROBES` are computed for each request: they say whether this process works, and answer 200 or 503.
Our own files are served under /static/, and usage reports are received by `report_queue.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from daemon.observer.metrics import CONTENT_TYPE as PROMETHEUS
from daemon.observer.metrics import metrics_text
from daemon.observer.page import page_html
from protocol.status import PeerSummary, RoundSummary, Status

HTML = "text/html; charset=utf-8"
JSON = "application/json"
# The trio side publishes every second. If it is silent for this long, it hangs.
SILENT_S = 10.0

_encode = msgspec.json.Encoder().encode


class PeersBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/v1/peers`. `lost` are those that were forgotten within the last hour."""

    as_of: float
    peers: tuple[PeerSummary, ...]
    lost: tuple[PeerSummary, ...] = ()


class RoundsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/v1/rounds`, newest first."""

    as_of: float
    rounds: tuple[RoundSummary, ...]


class HttpEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a path serves. With `revalidated`, answers have an ETag, and browsers keep them."""

    path: str
    content_type: str
    render: Callable[[Status], bytes]
    revalidated: bool = True


def _page(status: Status) -> bytes:
    return page_html(status).encode()


def _peers(status: Status) -> bytes:
    return _encode(PeersBody(as_of=status.as_of, peers=status.peers, lost=status.lost))


def _rounds(status: Status) -> bytes:
    return _encode(RoundsBody(as_of=status.as_of, rounds=status.rounds))


ENDPOINTS: tuple[HttpEndpoint, ...] = (
    HttpEndpoint(path="/", content_type=HTML, render=_page),
    HttpEndpoint(path="/api/v1/status", content_type=JSON, render=_encode),
    HttpEndpoint(path="/api/v1/peers", content_type=JSON, render=_peers),
    HttpEndpoint(path="/api/v1/rounds", content_type=JSON, render=_rounds),
    HttpEndpoint(path="/metrics", content_type=PROMETHEUS, render=metrics_text, revalidated=False),
)


def _not_healthy(status: Status, silent_s: float) -> str:
    if silent_s < SILENT_S:
        return ""
    return f"the swarm side has published nothing for {silent_s:.0f} s"


def _not_ready(status: Status, silent_s: float) -> str:
    if not status.you.peer:
        return "not started yet"
    found = bool(status.rounds) or any(peer.connected for peer in status.peers)
    if not found and status.you.role != "node":
        return "no peer of the run has been reached yet"
    return status.run.standstill


Probe = Callable[[Status, float], str]
"""(status, seconds since the last one was published) -> what is missing, or an empty string."""

PROBES: Mapping[str, Probe] = {"/healthz": _not_healthy, "/readyz": _not_ready}
