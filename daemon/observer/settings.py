"""Where the web side listens and to whom it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

DEFAULT_PORT = 8765


class ObserverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen, and which host names to answer.

    `host` is the address to listen on; `port` 0 chooses a free port. `hosts` are further names of
    this server, such as that of a reverse proxy. A request for any other name is refused: a
    stranger's web page could otherwise point its own name at this machine and read everything (DNS
    rebinding).
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = DEFAULT_PORT
    # How many ports above `port` to try where programs use it, before the system chooses one. 0
    # tries `port` alone.
    more_ports: int = 0
    hosts: tuple[str, ...] = ()
    # Origins such as https://example.org whose pages may read the API.
    origins: tuple[str, ...] = ()
    # The database of usage reports; None refuses reports.
    reports: Path | None = None


class BoundAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address that the web side listens on."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What to type into a browser on this machine."""
        # A browser cannot open a wildcard address.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
