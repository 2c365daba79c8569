"""Checks each request before it is answered, and defines the headers of every answer.

It guards against a stranger's web page that reads this one through the visitor's browser: by
pointing its own name at our address (Host), by a request across origins (Origin, Sec-Fetch-Site),
or in a frame. It also guards against markup in a peer's name that the escaping might miss: the
Content-Security-Policy lets a browser load and run only our own files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from daemon.observer.settings import BoundAddress, ObserverSettings

ALWAYS = ("localhost", "127.0.0.1", "::1")
METHODS = ("GET", "HEAD")
# Our longest path has 64 characters, and a cursor has 128.
MAX_TARGET_CHARS = 2048
# What a page of a named origin may send.
CORS_METHODS = "GET, HEAD, POST"
CORS_HEADERS = "Authorization, Content-Type, If-None-Match, Last-Event-ID"
# How long a browser may remember these permissions.
CORS_MAX_AGE_S = 600

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
        self._origins = frozenset(settings.origins)

    def cors_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return what lets a page of a named origin read the answer; empty for any other page."""
        origin = headers.get("Origin", "")
        if origin not in self._origins:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "ETag",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Origin",
        }

    def preflight_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the answer to the question of a browser before a request across origins."""
        return {
            **self.cors_headers(headers),
            "Access-Control-Allow-Methods": CORS_METHODS,
            "Access-Control-Allow-Headers": CORS_HEADERS,
            "Access-Control-Max-Age": str(CORS_MAX_AGE_S),
        }

    def check(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        local_address: str,
        methods: Sequence[str] = METHODS,
    ) -> Refusal | None:
        """Why to refuse a request; None to answer it. `methods` are those of the path.

        `local_address` is the address that received the request. A server on a wildcard address
        answers to the machine's own address too: a rebinding page always asks by a name.
        """
        is_named = headers.get("Origin", "") in self._origins
        if method not in methods and not (method == "OPTIONS" and is_named):
            allowed = " and ".join(methods)
            only = f"Only {allowed} {'is' if len(methods) == 1 else 'are'} allowed here."
            return Refusal(status=405, code="METHOD", what=only)
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
        if is_named:
            return None
        origin = headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != host.strip().lower():
            return Refusal(
                status=403,
                code="ORIGIN",
                what="Pages of another origin must not read this server.",
                fix="the operator can name the origin in observer.origins",
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
