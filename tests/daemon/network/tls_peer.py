"""A TLS client made with OpenSSL that can send any record to a session of ours."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from daemon.network.tls.certificate import BulkCertificate
from daemon.network.tls.handshake import TlsContext
from daemon.network.tls.session import TlsSession
from daemon.network.tls.traffic_keys import CIPHER_SUITES

TIMEOUT_S = 30.0


class OpenSSLPeer:
    """A client that keeps its keys, so that it can send any record."""

    def __init__(
        self, sock: socket.socket, certificate: BulkCertificate, suites: bytes = b""
    ) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate_file(str(certificate.path))
        context.use_privatekey_file(str(certificate.path))
        if suites:
            context.set_tls13_ciphersuites(suites)
        self.secrets: dict[bytes, bytes] = {}
        context.set_keylog_callback(self._keep)
        self.tls = SSL.Connection(context, sock)
        self.tls.set_connect_state()
        self.sock = sock

    def _keep(self, _: SSL.Connection, line: bytes) -> None:
        label, _random, secret = line.split()
        self.secrets[label] = bytes.fromhex(secret.decode())

    def send_record(self, number: int, inner: bytes, flip: int = 0) -> None:
        suite = CIPHER_SUITES[self.tls.get_cipher_name() or ""]
        secret = self.secrets[b"CLIENT_TRAFFIC_SECRET_0"]
        iv = int.from_bytes(suite.expand(secret, "iv", 12), "big")
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        aead = AESGCM(suite.expand(secret, "key", suite.key_bytes))
        body = bytearray(aead.encrypt((iv ^ number).to_bytes(12, "big"), inner, header))
        body[0] ^= flip
        self.sock.sendall(header + bytes(body))

    def alert(self) -> str:
        """The reason with which the other side gives up."""
        with pytest.raises(SSL.Error) as refused:
            self.tls.recv(1)
        return str(refused.value.args[0][0][2])


@asynccontextmanager
async def serving(certificate: BulkCertificate) -> AsyncIterator[tuple[TlsSession, socket.socket]]:
    """A session of ours that waits for a handshake, and the other end of its connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname(), TIMEOUT_S) as theirs:
        ours, _ = listener.accept()
        ours.setblocking(False)
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        context = TlsContext(certificate.path, server_side=True)
        # OpenSSL reads the socket itself.
        theirs.settimeout(None)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 30, 0))
        with trio.fail_after(TIMEOUT_S):
            session = TlsSession(transport, context, certificate.der.__eq__)
            yield session, theirs
            await session.aclose()


async def complete_handshake(session: TlsSession, peer: OpenSSLPeer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, peer.tls.do_handshake)
        await session.handshake()
