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

from daemon.network.tls.records import (
    CIPHER_SUITES,
    HEADER_BYTES,
    MAX_PROTECTED_BYTES,
    RECORD_BYTES,
    RecordOpener,
    RecordSealer,
)

_FROM_CLIENT, _FROM_SERVER = b"CLIENT_TRAFFIC_SECRET_0", b"SERVER_TRAFFIC_SECRET_0"
_HANDSHAKE, _DATA = 22, 23  # record types (RFC 8446, 5.1)
_CLIENT_HELLO = 1
UNEXPECTED_MESSAGE = b"\x15\x03\x03\x00\x02\x02\x0a"
"""A fatal alert as it travels before there are keys (RFC 8446, 5.1 and 6)."""
_MAX_FRAGMENT_LENGTH = 1
FRAGMENT_BYTES = {1: 512, 2: 1024, 3: 2048, 4: 4096}  # by the extension's code (RFC 6066, 4)
MAX_HELLO_BYTES = 1 << 14
"""A longer ClientHello is not searched for extensions. OpenSSL refuses one above 131,396 bytes; the
longest that a TLS library sends, with two post-quantum key shares, has about 3,000."""

# In OpenSSL's reasons and in its names of alerts.
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
    sealing: RecordSealer
    opening: RecordOpener
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
        self._hello: bytearray | None = bytearray() if server_side else None
        self._limit = RECORD_BYTES
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
        if not 20 <= came[0] <= _DATA or came[1] != 3 or size > MAX_PROTECTED_BYTES:
            end = len(came)  # OpenSSL says what is wrong with it
        elif len(came) < (end := HEADER_BYTES + size):
            return b""
        record = bytes(came[:end])
        del came[:end]
        if self._hello is not None and record[0] == _HANDSHAKE:
            self._read_hello(record[HEADER_BYTES:])
        return record

    def _read_hello(self, part: bytes) -> None:
        """Look for what a ClientHello limits: OpenSSL acknowledges `max_fragment_length`."""
        hello = self._hello
        assert hello is not None
        hello += part
        size = 4 + int.from_bytes(hello[1:4], "big") if len(hello) >= 4 else MAX_HELLO_BYTES
        if len(hello) >= size or len(hello) > MAX_HELLO_BYTES:
            code = _fragment_code(bytes(hello[:size]))
            self._limit = FRAGMENT_BYTES.get(code, RECORD_BYTES)
            # A second hello, after a retry request, repeats the extension.
            self._hello = None

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

    def agreed(self, unsent: bytes) -> HandshakeResult:
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
        used = _count_data_records(unsent) if self._server_side else 0
        return HandshakeResult(
            certificate=crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate),
            sealing=RecordSealer(suite, secrets[ours], limit=self._limit, used=used),
            opening=RecordOpener(
                suite, secrets[theirs], limit=self._limit, from_server=not self._server_side
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


def _count_data_records(wire: bytes) -> int:
    count = at = 0
    while at + HEADER_BYTES <= len(wire):
        count += wire[at] == _DATA
        at += HEADER_BYTES + int.from_bytes(wire[at + 3 : at + HEADER_BYTES], "big")
    return count


def _fragment_code(hello: bytes) -> int:
    """The code in a ClientHello's `max_fragment_length` extension (RFC 8446, 4.1.2), or 0.

    OpenSSL refuses a malformed hello by itself, so whatever does not parse here counts as none.
    """
    if not hello or hello[0] != _CLIENT_HELLO:
        return 0
    # The message's header, the version, the random.
    at = 4 + 2 + 32
    # Session id, cipher suites, compression methods.
    for length_bytes in (1, 2, 1):
        at += length_bytes + int.from_bytes(hello[at : at + length_bytes], "big")
    at += 2  # the length of all extensions
    while at + 4 <= len(hello):
        kind = int.from_bytes(hello[at : at + 2], "big")
        size = int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _MAX_FRAGMENT_LENGTH:
            return hello[at + 4] if size == 1 and at + 4 < len(hello) else 0
        at += 4 + size
    return 0
