"""Checks each request before it is answered, and defines the headers of every answer.

It guards against a stranger's web page that reads this one through the visitor's browser: by
pointing its own name at our address (Host), by a request across origins (Origin, Sec-Fetch-Site),
or in a frame. It also guards against markup in a peer's name that the escaping might miss: the
Content-Security-Policy lets a browser load and run only our own files.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from daemon.observer.settings import BoundAddress, ObserverSettings

ALWAYS = ("localhost", "127.0.0.1", "::1")
METHODS = ("GET", "HEAD")
# Our longest path has 22 characters.
MAX_TARGET_CHARS = 2048

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not the versions of our libraries.
    "Server": "hypergpu",
}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is refused: `code` is stable, `what` and `fix` are sentences."""

    status: int
    code: str
    what: str
    fix: str = ""


def host_name(value: str) -> str:
    """Return the name in a Host header: lower case, without port, brackets and final dot.

    It is empty for a header that is not a host.
    """
    value = value.strip().lower()
    if value.startswith("["):
        name, bracket, port = value[1:].partition("]")
        return name if bracket and (not port or (port[0] == ":" and port[1:].isdecimal())) else ""
    name, colon, port = value.partition(":")
    return name.rstrip(".") if not colon or port.isdecimal() else ""


class RequestGuard:
    """The checks for one listening address."""

    def __init__(self, settings: ObserverSettings, bound: BoundAddress) -> None:
        self._names = {
            *ALWAYS,
            bound.host.lower(),
            *(host_name(name) for name in settings.hosts),
        } - {"", "0.0.0.0", "::"}

    def check(
        self, method: str, target: str, headers: Mapping[str, str], local_address: str
    ) -> Refusal | None:
        """Why to refuse a request; None to answer it.

        `local_address` is the address that received the request. A server on a wildcard address
        answers to the machine's own address too: a rebinding page always asks by a name.
        """
        if method not in METHODS:
            return Refusal(
                status=405,
                code="METHOD",
                what=f"Only {' and '.join(METHODS)} are allowed: this server is read-only.",
            )
        if len(target) > MAX_TARGET_CHARS:
            return Refusal(
                status=414,
                code="TARGET",
                what=f"The path has {len(target)} characters; {MAX_TARGET_CHARS} are allowed.",
            )
        host = headers.get("Host", "")
        name = host_name(host)
        if name not in self._names and name != local_address.lower():
            return Refusal(
                status=421,
                code="HOST",
                what="This server does not answer to that host name, because a web page"
                " elsewhere could use the name to read this one.",
                fix="open the address that hypergpud printed,"
                " or add the name to observer.hosts in config.toml",
            )
        origin = headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != host.strip().lower():
            return Refusal(
                status=403, code="ORIGIN", what="Pages of another origin must not read this server."
            )
        if (
            headers.get("Sec-Fetch-Site") == "cross-site"
            and headers.get("Sec-Fetch-Mode") != "navigate"
        ):
            return Refusal(
                status=403,
                code="ORIGIN",
                what="Pages of another site can link to this server, but must not load from it.",
            )
        return None
