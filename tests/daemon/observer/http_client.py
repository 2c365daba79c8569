"""One HTTP request over a connection of its own, from any address of this machine."""

from __future__ import annotations

import http.client
import json
from typing import Any

import msgspec
import trio

from daemon.observer.settings import BoundAddress


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    bound: BoundAddress,
    path: str,
    method: str = "GET",
    *,
    source: str = "127.0.0.1",
    body: bytes | None = None,
    **headers: str,
) -> Reply:
    """Send a request from the address `source`; a `_` in a header's name stands for `-`."""
    connection = http.client.HTTPConnection(
        bound.host, bound.port, timeout=10, source_address=(source, 0)
    )
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=given)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())
    finally:
        connection.close()


async def aask(bound: BoundAddress, path: str, method: str = "GET", **options: Any) -> Reply:
    """The same without blocking trio."""
    return await trio.to_thread.run_sync(lambda: ask(bound, path, method, **options))
