"""Requests for an observer's status, over one connection."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from protocol.errors import Unreachable
from protocol.status import Status

REQUEST_S = 10.0
STATUS_PATH = "/api/v1/status"


@contextmanager
def status_connection(host: str, port: int | None) -> Iterator[http.client.HTTPConnection]:
    """A connection that serves many requests."""
    connection = http.client.HTTPConnection(host, port, timeout=REQUEST_S)
    try:
        yield connection
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection) -> bytes:
    """Raises `Unreachable` where the page refuses."""
    connection.request("GET", STATUS_PATH)
    with connection.getresponse() as response:
        if response.status != http.HTTPStatus.OK:
            raise Unreachable(f"the observer answers {response.status}")
        return response.read()


def knows_round(connection: http.client.HTTPConnection) -> bool:
    """Whether the observer has heard of a certificate. Raises `Unreachable` where it refuses."""
    status = msgspec.json.decode(_answer(connection), type=Status)
    return any(known.certificate for known in status.rounds)


def answered_s(connection: http.client.HTTPConnection) -> float:
    """Seconds until one answer has arrived. Raises `Unreachable` where the observer refuses."""
    began = time.perf_counter()
    _answer(connection)
    return time.perf_counter() - began
