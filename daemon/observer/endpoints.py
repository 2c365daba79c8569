"""The endpoints of the web side: one table.

To add an endpoint:

1. Write a function that renders a `Status` as bytes; it must be pure and take a few milliseconds.
2. Add an `HttpEndpoint` to `ENDPOINTS` with its path, content type and that function.
3. Add the path to `test_every_endpoint_answers` in tests/daemon/observer/test_server.py, and to
   docs/operate.md (tests/docs compares).

Each endpoint is rendered at most once for each published status, at most once a second, and only
when a reader asks. All readers get those bytes, so a thousand readers cost what one costs.

Pages of lists, and what takes a parameter, are in `api/resources.py`. `PROBES` are computed for
each request: they say whether this process works, and answer 200 or 503. Our own files are served
under /static/, and usage reports are received by `report_queue.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from daemon.observer.api import dashboard
from daemon.observer.metrics import CONTENT_TYPE as PROMETHEUS
from daemon.observer.metrics import metrics_text
from daemon.observer.page import page_html
from protocol.status import Status

HTML = "text/html; charset=utf-8"
JSON = "application/json"
# The trio side publishes every second. If it is silent for this long, it hangs.
SILENT_S = 10.0

_encode = msgspec.json.Encoder().encode

Make = Callable[[Status], msgspec.Struct]


class HttpEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a path serves. With `revalidated`, answers have an ETag, and browsers keep them.

    `body` is the record of a JSON answer, for its description.
    """

    path: str
    content_type: str
    render: Callable[[Status], bytes]
    summary: str
    body: type[msgspec.Struct] | None = None
    revalidated: bool = True


def _page(status: Status) -> bytes:
    return page_html(status).encode()


def _json(path: str, body: type[msgspec.Struct], make: Make, summary: str) -> HttpEndpoint:
    return HttpEndpoint(
        path=path,
        content_type=JSON,
        render=lambda status: _encode(make(status)),
        summary=summary,
        body=body,
    )


ENDPOINTS: tuple[HttpEndpoint, ...] = (
    HttpEndpoint(path="/", content_type=HTML, render=_page, summary="The page."),
    _json("/api/v1/status", Status, lambda status: status, "Everything there is to show."),
    HttpEndpoint(
        path="/metrics",
        content_type=PROMETHEUS,
        render=metrics_text,
        summary="The metrics, for Prometheus.",
        revalidated=False,
    ),
    HttpEndpoint(
        path="/health",
        content_type=JSON,
        render=dashboard.health,
        summary="Whether the run is well (original dashboard).",
        body=dashboard.HealthBody,
        revalidated=False,
    ),
    _json(
        "/api/status",
        dashboard.DashboardStatus,
        dashboard.status_body,
        "What the run does (original dashboard).",
    ),
    _json(
        "/api/metrics",
        dashboard.DashboardMetrics,
        dashboard.metrics_body,
        "The run's figures (original dashboard).",
    ),
    _json(
        "/api/nodes",
        dashboard.NodesBody,
        dashboard.nodes_body,
        "The nodes, lost ones too (original dashboard).",
    ),
    _json(
        "/api/blockchain/session",
        dashboard.SessionBody,
        dashboard.session_body,
        "The run, and whether it pays (original dashboard).",
    ),
    _json(
        "/api/blockchain/contributions",
        dashboard.ContributionsBody,
        dashboard.contributions_body,
        "Work in the last certificates (original dashboard).",
    ),
    _json(
        "/api/config",
        dashboard.ConfigBody,
        dashboard.config_body,
        "What the members agreed on (original dashboard).",
    ),
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
