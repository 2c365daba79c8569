"""`POST /api/training/start`, `pause` and `stop`: orders of the run's owner.

On the owner's home, a request with the bearer token is signed there. Any other observer forwards an
order that the owner has signed already. Every node verifies the signature by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from daemon.observer.request_guard import Refusal

PREFIX = "/api/training/"
ACTIONS: tuple[Literal["start", "pause", "stop"], ...] = ("start", "pause", "stop")
PATHS = tuple(f"{PREFIX}{action}" for action in ACTIONS)

MAX_BODY_BYTES = 4096
"""A signed order has 300 bytes."""


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request; an empty body is allowed.

    `run` is the run's id in hex. `signed` is the envelope of an order that the owner has signed, in
    hex; without it, the request needs the token.
    """

    run: str = ""
    signed: str = ""


class OrderBody(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `changed` is False where the run did that already."""

    run: str
    action: str
    serial: int
    changed: bool
    message: str


class OrderRefused(Exception):
    """An order that is not carried out. `refusal` is the answer."""

    def __init__(self, status: int, code: str, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.refusal = Refusal(status=status, code=code, what=what, fix=fix)


Control = Callable[[str, str, OrderRequest], OrderBody]
"""Carries out (action, bearer token or empty, request); blocks. Raises `OrderRefused`."""


def read_order(body: bytes) -> OrderRequest:
    """Decode the body of a request. Raises `OrderRefused`."""
    if len(body) > MAX_BODY_BYTES:
        raise OrderRefused(413, "OVERSIZED", f"The body has at most {MAX_BODY_BYTES} bytes.")
    if not body.strip():
        return OrderRequest()
    try:
        return msgspec.json.decode(body, type=OrderRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OrderRefused(400, "BAD_BODY", f"The body cannot be read: {error}.") from None


def bearer_of(header: str) -> str:
    """Return the token of an Authorization header; empty for another one."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
