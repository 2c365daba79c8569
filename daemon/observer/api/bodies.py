"""The bodies that many paths share."""

from __future__ import annotations

import msgspec

from daemon.observer.request_guard import Refusal


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a refusal."""

    error: Refusal


class ProbeBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/healthz` and `/readyz`: `reason` says what is missing."""

    ok: bool
    as_of: float
    reason: str = ""
