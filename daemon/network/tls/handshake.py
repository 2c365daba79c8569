"""The handshake of a TLS 1.3 session, by OpenSSL between two memory buffers.

A handshake ends with the other side's certificate and the keys of both directions. pyOpenSSL gives
both: it reports the secrets to a callback, so that they touch no file, and it lets a node name the
cipher suites of TLS 1.3, which Python 3.11's `ssl` does not. Suites that `tls_records` cannot use
are therefore never agreed on.
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
    """What a handshake ends with.

    `certificate` is the other side's, in DER. `early` came behind the handshake and is still
    encrypted.
    """

    certificate: bytes
    sealer: RecordSealer
    opener: RecordOpener
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
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # sessions are never resumed
        context.use_privatekey_file(str(pem))
        context.use_certificate_file(str(pem))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _is_trusted)
        context.set_keylog_callback(_keep_secret)
        self._context = context

    def begin(self, trusts: Callable[[bytes], bool]) -> TlsHandshake:
        """Begin a handshake. `trusts` says of a certificate in DER whether it is acceptable."""
        return TlsHandshake(
            SSL.Connection(self._context, None), trusts, server_side=self.server_side
        )


class _Session(msgspec.Struct):
    """What the callbacks of one connection need: whom to trust, and where secrets go."""

    trusts: Callable[[bytes], bool]
    secrets: dict[bytes, bytes] = {}


def _is_trusted(
    connection: SSL.Connection, certificate: crypto.X509, _error: int, _depth: int, _ok: int
) -> bool:
    """OpenSSL asks this for each certificate of a chain, whatever it thinks of it itself.

    Names, dates and issuers do not count: certificates are compared byte for byte. OpenSSL checks
    that the other side holds the private key.
    """
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return bool(connection.get_app_data().trusts(der))


def _keep_secret(connection: SSL.Connection, line: bytes) -> None:
    """A line of NSS's key log format: label, client random, secret."""
    label, _, secret = line.split()
    connection.get_app_data().secrets[label] = bytes.fromhex(secret.decode())


class TlsHandshake:
    """Moves no byte itself: `feed` it what came, `step`, and send what is `unsent`."""

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
        # What OpenSSL has not read: it is given whole records.
        self._came = bytearray()
        self._hello = ClientHello()
        self._failed = self._spoke = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take what came. No bytes mean that the connection has ended."""
        if data:
            self._came += data
        else:
            self._tls.bio_shutdown()

    def step(self) -> bool:
        """Read the records that came, one at a time, and answer them.

        A record behind the handshake's last one is left alone: its keys are not OpenSSL's.

        Returns:
            Whether the handshake is done.

        Raises:
            HandshakeFailed: For what is no TLS or not a trusted certificate. What is unsent then
                tells the other side why.
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
        """The next whole record that came, or nothing. What is no TLS goes to OpenSSL as it is."""
        came = self._came
        if len(came) < HEADER_BYTES:
            return b""
        size = int.from_bytes(came[3:HEADER_BYTES], "big")
        if not 20 <= came[0] <= DATA or came[1] != 3 or size > MAX_PROTECTED_BYTES:
            end = len(came)  # OpenSSL says what is wrong with it
        elif len(came) < (end := HEADER_BYTES + size):
            return b""
        record = bytes(came[:end])
        del came[:end]
        if self._server_side and record[0] == HANDSHAKE:
            self._hello.add(record[HEADER_BYTES:])
        return record

    def unsent(self) -> bytes:
        """Take what is to be sent now. After a failure this is an alert."""
        sent = bytearray()
        while True:
            try:
                sent += self._tls.bio_read(1 << 16)
            except SSL.Error:
                # WantReadError with an empty buffer; the buffer has no other error.
                break
        if self._failed and not sent and not self._spoke:
            # OpenSSL has no word for a peer that speaks no TLS.
            return UNEXPECTED_MESSAGE
        self._spoke = self._spoke or bool(sent)
        return bytes(sent)

    def result(self, unsent: bytes) -> HandshakeResult:
        """The outcome, after the last step. `unsent` is what that step had to send.

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
        # A server's last step sends tickets, under the first numbers of the keys that we go on
        # with.
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
