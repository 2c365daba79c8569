"""Strangers at every open port of a real daemon and observer are refused and counted."""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path

import msgspec
import pytest

from daemon.control.wire import MAX_REQUEST_BYTES, ControlReply, socket_address
from daemon.network.tls.certificate import load_or_make
from tests.e2e.pair.conftest import Pair
from tests.e2e.pair.test_observer import get
from tests.e2e.processes import listening_ports, until
from tests.e2e.swarm import LOOPBACK, ROUND_S

# Limit for a peer that waits for the rest of a request.
READ_TIMEOUT_S = 1.0

pytestmark = [
    pytest.mark.real,
    pytest.mark.swarm,
    pytest.mark.xdist_group("pair"),
    pytest.mark.timeout(180),
]

GARBAGE = {
    "random bytes": random.Random(1).randbytes(4096),
    "megabytes of them": random.Random(2).randbytes(4 << 20),
    "the largest length there is": b"\xff" * 12,
    "libp2p's first frame, then nonsense": b"\x13/multistream/1.0.0\n"
    + random.Random(3).randbytes(300),
    "half of a TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(40),
    "a web browser": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "headers without an end": b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 100_000,
    "nothing": b"",
}


def throw(port: int, data: bytes) -> None:
    """Send as much as the other side accepts, and wait until it closes."""
    with socket.create_connection((LOOPBACK, port), timeout=READ_TIMEOUT_S) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            # The other side closed, or waits for the rest of a request.
            pass


def control_port(pair: Pair) -> int:
    return int(pair.target.now().you.addresses[0].split("/")[4])


def bulk_port(pair: Pair) -> int:
    (port,) = set(listening_ports(pair.target.pid)) - {control_port(pair)}
    return port


def test_garbage_at_every_port_is_refused(pair: Pair) -> None:
    watched = listening_ports(pair.observer.pid)
    assert len(watched) == 2, "an observer listens for the swarm and for readers"
    before = pair.target.now().refusals["handshake"]
    for kind, data in GARBAGE.items():
        for port in (control_port(pair), bulk_port(pair), *watched):
            throw(port, data)
        assert get(f"{pair.page}healthz"), kind
    thrown = 2 * len(GARBAGE)
    until(
        lambda: pair.target.now().refusals["handshake"] >= before + thrown,
        f"all {thrown} are counted",
        ROUND_S,
    )


def greet(port: int, context: ssl.SSLContext) -> bytes:
    """Open a TLS session to the bulk port and ask for the bulk protocol. Returns the answer."""
    name = b"/hypergpu/bulk/1"
    with (
        socket.create_connection((LOOPBACK, port), timeout=10.0) as connection,
        context.wrap_socket(connection) as session,
    ):
        try:
            session.sendall(bytes((len(name),)) + name)
            return session.recv(1)
        except OSError:
            # A TLS 1.3 client learns only now that it was refused.
            return b""


def test_tls_without_a_known_certificate_is_refused(pair: Pair, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    before = pair.target.now().refusals["tls"]
    assert greet(bulk_port(pair), context) == b""
    until(lambda: pair.target.now().refusals["tls"] > before, "who shows none is counted", ROUND_S)
    context.load_cert_chain(load_or_make(tmp_path / "stranger.pem", "stranger").path)
    assert greet(bulk_port(pair), context) == b""
    until(
        lambda: pair.target.now().refusals["tls"] > before + 1,
        "who shows a stranger's is counted",
        ROUND_S,
    )


def ask(pair: Pair, request: bytes) -> bytes:
    """Return the answer of the control socket."""
    answer = b""
    with socket_address(pair.target.home) as address, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10.0)
        connection.connect(address)
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            # The other side closed.
            pass
        while piece := connection.recv(65536):
            answer += piece
    return answer


NONSENSE = {
    "random bytes": random.Random(4).randbytes(1000) + b"\n",
    "a line without an end": b"x" * (MAX_REQUEST_BYTES + 1),
    "a call that is none": b'{"call":"sudo"}\n',
    "another type": b'{"call":[1,2]}\n',
    "nothing": b"",
}


def test_garbage_at_the_control_socket_is_refused(pair: Pair) -> None:
    for kind, request in NONSENSE.items():
        answer = msgspec.json.decode(ask(pair, request), type=ControlReply)
        assert (answer.ok, answer.code) == (False, "CONTROL"), kind
