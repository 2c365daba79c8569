"""Who is answered: checks on a request before anything is looked up, and the headers of every
answer.

What is guarded against: a stranger's web page that reads this one through the visitor's browser, by
pointing its own name at our address (Host), by asking across origins (Origin, Sec-Fetch-Site), or
by framing it; and whatever a peer's name may contain, if it ever got past the escaping
(Content-Security-Policy: nothing is loaded or run but our own files).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from daemon.observer.settings import BoundAddress, ObserverSettings

ALWAYS = ("localhost", "127.0.0.1", "::1")
METHODS = ("GET", "HEAD")
MAX_TARGET_CHARS = 2048  # our longest path has 16

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "hypergpu",  # not which versions of what
}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is not answered: `code` is stable, `what` and `fix` are sentences."""

    status: int
    code: str
    what: str
    fix: str = ""


def host_name(value: str) -> str:
    """The name in a Host header: lower case, without port, brackets or a last dot.

    Empty for what is no host.
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
        """None for a request that may be answered.

        `local_address` is where it was received: on a wildcard address, the machine's own address
        is a fine host to ask for (a rebinding page always comes with a name).
        """
        if method not in METHODS:
            return Refusal(
                status=405,
                code="METHOD",
                what=f"Only {' and '.join(METHODS)} are served: nothing can be changed here.",
            )
        if len(target) > MAX_TARGET_CHARS:
            return Refusal(
                status=414,
                code="TARGET",
                what=f"The address asked for has {len(target)} characters; {MAX_TARGET_CHARS} are allowed.",
            )
        host = headers.get("Host", "")
        name = host_name(host)
        if name not in self._names and name != local_address.lower():
            return Refusal(
                status=421,
                code="HOST",
                what="This server does not answer to that name: a page elsewhere could use it to read what is shown here.",
                fix="open it by the address it printed, or add the name to observer.hosts in config.toml",
            )
        origin = headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != host.strip().lower():
            return Refusal(
                status=403, code="ORIGIN", what="Pages of another origin may not read this server."
            )
        if (
            headers.get("Sec-Fetch-Site") == "cross-site"
            and headers.get("Sec-Fetch-Mode") != "navigate"
        ):
            return Refusal(
                status=403,
                code="ORIGIN",
                what="Pages of another site may link to this server but not load from it.",
            )
        return None
