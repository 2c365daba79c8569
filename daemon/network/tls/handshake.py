"""The handshake of a TLS 1.3 session, by OpenSSL between two memory buffers.

A handshake ends with the other side's certificate and the keys of both directions. pyOpenSSL gives
both: it reports the secrets to a callback, so that they touch no file. It also lets a node name the
cipher suites of TLS 1.3, which Python 3.11's `ssl` does not. So the two sides never agree on a
suite that `traffic_keys` cannot use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from OpenSSL import SSL, crypto

from daemon.network.tls.client_hello import ClientHello, count_data_records
from daemon.network.tls.control_messages import DATA, HANDSHAKE
from daemon.network.tls.record_opener import RecordOpener
from daemon.network.tls.record_sealer import RecordSealer
from daemon.network.tls.records import HEADER_BYTES, MAX_PROTECTED_BYTES
from daemon.network.tls.traffic_keys import CIPHER_SUITES

_FROM_CLIENT, _FROM_SERVER = b"CLIENT_TRAFFIC_SECRET_0", b"SERVER_TRAFFIC_SECRET_0"
# A fatal alert as it travels before there are keys (RFC 8446, 5.1 and 6).
UNEXPECTED_MESSAGE = b"\x15\x03\x03\x00\x02\x02\x0a"

# Words of OpenSSL's reasons that mean a certificate was not trusted.
_ABOUT_TRUST = ("certificate", "unknown ca")


class HandshakeFailed(Exception):
    """The two sides did not agree.

    Attributes:
        stranger: Whether one side did not trust the other's certificate.
    """

    def __init__(self, reason: str, *, stranger: bool = False) -> None:
        super().__init__(reason)
        self.stranger = stranger


class HandshakeResult(msgspec.Struct, frozen=True):
    """The outcome of a handshake."""

    # The other side's certificate in DER.
    certificate: bytes
    sealer: RecordSealer
    opener: RecordOpener
    # Bytes that arrived behind the handshake, still encrypted.
    early: bytes


class TlsContext:
    """One node's side of many sessions: its certificate, and which certificates it trusts."""

    def __init__(self, pem: Path, *, server_side: bool) -> None:
        """
        Args:
            pem: A file with the private key and the certificate.
            server_side: Whether this side waits for a ClientHello.
        """
        self.server_side = server_side
        method = SSL.TLS_SERVER_METHOD if server_side else SSL.TLS_CLIENT_METHOD
        context = SSL.Context(method)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(":".join(CIPHER_SUITES).encode())
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET)
        # Sessions are never resumed.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_privatekey_file(str(pem))
        context.use_certificate_file(str(pem))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _is_trusted)
        context.set_keylog_callback(_keep_secret)
        self._context = context

    def begin(self, trusts: Callable[[bytes], bool]) -> TlsHandshake:
        """Begin a handshake. `trusts` says whether a certificate, in DER, is acceptable."""
        return TlsHandshake(
            SSL.Connection(self._context, None), trusts, server_side=self.server_side
        )


class _Session(msgspec.Struct):
    """The data of one connection's callbacks: whom to trust, and the secrets so far."""

    trusts: Callable[[bytes], bool]
    secrets: dict[bytes, bytes] = {}


def _is_trusted(
    connection: SSL.Connection, certificate: crypto.X509, _error: int, _depth: int, _ok: int
) -> bool:
    """Judge one certificate of a chain; OpenSSL asks in every case.

    Names, dates and issuers do not count: certificates are compared byte for byte. OpenSSL checks
    that the other side holds the private key.
    """
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return bool(connection.get_app_data().trusts(der))


def _keep_secret(connection: SSL.Connection, line: bytes) -> None:
    """Keep the secret of a line in NSS's key log format: label, client random, secret."""
    label, _, secret = line.split()
    connection.get_app_data().secrets[label] = bytes.fromhex(secret.decode())


class TlsHandshake:
    """One handshake without I/O: `feed` received bytes, `step`, and send what is `unsent`."""

    def __init__(
        self, connection: SSL.Connection, trusts: Callable[[bytes], bool], *, server_side: bool
    ) -> None:
        self._tls, self._server_side = connection, server_side
        self._session = _Session(trusts=trusts)
        connection.set_app_data(self._session)
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        # Bytes that OpenSSL has not read yet. OpenSSL is given whole records.
        self._came = bytearray()
        self._hello = ClientHello()
        self._failed = self._spoke = False

    def feed(self, data: bytes | memoryview) -> None:
        """Add received bytes. No bytes mean that the connection has ended."""
        if data:
            self._came += data
        else:
            self._tls.bio_shutdown()

    def step(self) -> bool:
        """Read the received records one at a time, and answer them.

        A record behind the handshake's last one is left alone: its keys are not OpenSSL's.

        Returns:
            Whether the handshake is done.

        Raises:
            HandshakeFailed: When the other side does not speak TLS or is not trusted. The unsent
                bytes then tell the other side why.
        """
        try:
            while not self._advance():
                record = self._next_record()
                if not record:
                    return False
                self._tls.bio_write(record)
        except SSL.Error as error:
            self._failed = True
            reason = _reason_of(error)
            raise HandshakeFailed(
                reason, stranger=any(words in reason for words in _ABOUT_TRUST)
            ) from None
        return True

    def _advance(self) -> bool:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def _next_record(self) -> bytes:
        """The next whole received record, or nothing. Bytes that are not TLS count as a record."""
        came = self._came
        if len(came) < HEADER_BYTES:
            return b""
        size = int.from_bytes(came[3:HEADER_BYTES], "big")
        if not 20 <= came[0] <= DATA or came[1] != 3 or size > MAX_PROTECTED_BYTES:
            # OpenSSL finds out what is wrong.
            end = len(came)
        elif len(came) < (end := HEADER_BYTES + size):
            return b""
        record = bytes(came[:end])
        del came[:end]
        if self._server_side and record[0] == HANDSHAKE:
            self._hello.add(record[HEADER_BYTES:])
        return record

    def unsent(self) -> bytes:
        """Remove and return the bytes to send now. After a failure they are an alert."""
        sent = bytearray()
        while True:
            try:
                sent += self._tls.bio_read(1 << 16)
            except SSL.Error:
                # This is WantReadError for an empty buffer, which has no other error.
                break
        if self._failed and not sent and not self._spoke:
            # OpenSSL sends no alert to a peer that does not speak TLS.
            return UNEXPECTED_MESSAGE
        self._spoke = self._spoke or bool(sent)
        return bytes(sent)

    def result(self, unsent: bytes) -> HandshakeResult:
        """The outcome, after the last step. `unsent` are the bytes that the step had to send.

        Raises:
            HandshakeFailed: Where OpenSSL did not report the keys.
        """
        suite = CIPHER_SUITES.get(self._tls.get_cipher_name() or "")
        ours, theirs = _FROM_SERVER, _FROM_CLIENT
        if not self._server_side:
            ours, theirs = theirs, ours
        secrets = self._session.secrets
        certificate = self._tls.get_peer_certificate()
        if suite is None or certificate is None or not {ours, theirs} <= secrets.keys():
            raise HandshakeFailed("OpenSSL did not report what it agreed on")
        # A server's last step sends tickets, which use up the first record numbers of our keys.
        used = count_data_records(unsent) if self._server_side else 0
        return HandshakeResult(
            certificate=crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate),
            sealer=RecordSealer(suite, secrets[ours], limit=self._hello.record_limit, used=used),
            opener=RecordOpener(
                suite,
                secrets[theirs],
                limit=self._hello.record_limit,
                from_server=not self._server_side,
            ),
            early=bytes(self._came),
        )


def _reason_of(error: SSL.Error) -> str:
    """The first reason in OpenSSL's queue of errors, in its own words."""
    if isinstance(error, SSL.ZeroReturnError):
        return "the other side ended the session"
    if isinstance(error, SSL.SysCallError):
        return "the connection ended in the handshake"
    queue = error.args[0] if error.args else []
    return str(queue[0][2]) if queue else "the handshake failed"
