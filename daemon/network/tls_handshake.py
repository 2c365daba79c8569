"""The handshake of a TLS 1.3 session, by OpenSSL between two memory buffers: it ends with the other side's certificate and both directions' keys.

Python gives a session's secrets to nobody but a key log, a file by its name (`SSLContext.keylog_filename`, lines as NSS writes them). Here that file
is a pipe that exists while OpenSSL takes one step: the secrets touch no disk, and those of two sessions never meet.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from daemon.network.tls_records import SUITES, Opening, Sealing
from protocol.errors import UserError

DESCRIPTORS = "/dev/fd"  # where this process finds what it has open by number: Linux (through /proc), macOS, BSD
_LINES_BYTES = 1 << 12  # five lines of less than 200 bytes: also what the smallest pipe holds, so that writing them never waits
_FROM_CLIENT, _FROM_SERVER = b"CLIENT_TRAFFIC_SECRET_0", b"SERVER_TRAFFIC_SECRET_0"


class Agreed(msgspec.Struct, frozen=True):
    """What a handshake ends with. `certificate` is the other side's, in DER; `early` came behind the handshake and is not decrypted."""

    certificate: bytes
    sealing: Sealing
    opening: Opening
    early: bytes


class Handshake:
    """Moves no byte itself: `feed` it what came, `step`, and send what is `unsent`."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        if server_side:
            context.num_tickets = 0  # sessions are never resumed, and OpenSSL's tickets would use up numbers of our records
        self._server_side = server_side
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._secrets: dict[bytes, bytes] = {}

    def feed(self, data: bytes | memoryview) -> None:
        """Nothing: the connection has ended."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def step(self) -> bool:
        """Whether it is done. Raises `ssl.SSLError` for what is no TLS or not the trusted certificate (what is unsent then tells the other side
        why), `OSError` when there is no pipe to be had."""
        with _key_log(self._tls.context, self._secrets):
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
        return True

    def unsent(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()

    def agreed(self) -> Agreed:
        """After the last step. Raises `ssl.SSLError` for a cipher suite that `tls_records` does not have, and where OpenSSL told no keys."""
        cipher = self._tls.cipher()
        suite = SUITES.get(cipher[0] if cipher else "")
        if suite is None:
            raise ssl.SSLError(f"the two sides agreed on {cipher and cipher[0]}, and bulk bytes need one of {', '.join(SUITES)}")
        ours, theirs = (_FROM_SERVER, _FROM_CLIENT) if self._server_side else (_FROM_CLIENT, _FROM_SERVER)
        if not {ours, theirs} <= self._secrets.keys():
            raise ssl.SSLError("OpenSSL did not tell the keys that it agreed on")
        return Agreed(
            certificate=self._tls.getpeercert(binary_form=True) or b"",
            sealing=Sealing(suite, self._secrets[ours]),
            opening=Opening(suite, self._secrets[theirs]),
            early=self._incoming.read(),  # OpenSSL takes no byte behind the record it reads, unless told to read ahead
        )


def check_key_log() -> None:
    """Raises `UserError("KEY_LOG")` where no session could be had. Takes a millisecond."""
    try:
        with _key_log(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), {}):
            pass
    except OSError as error:
        raise UserError(
            "KEY_LOG",
            f"OpenSSL cannot give the keys of TLS sessions through {DESCRIPTORS}.",
            why=str(error),
            fix="mount /proc where this runs (containers may leave it out), and see that the limit of open files is not reached (ulimit -n)",
        ) from None


@contextmanager
def _key_log(context: ssl.SSLContext, secrets: dict[bytes, bytes]) -> Iterator[None]:
    """Secrets of what OpenSSL does inside, by their label."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        context.keylog_filename = f"{DESCRIPTORS}/{writing}"
        try:
            yield
        finally:
            context.keylog_filename = None
            try:
                lines = os.read(reading, _LINES_BYTES)
            except BlockingIOError:
                lines = b""  # nothing was agreed on in this step
            for line in lines.splitlines():
                if not line.startswith(b"#"):  # Python begins a file that can tell its place with a remark
                    label, _, secret = line.split()
                    secrets[label] = bytes.fromhex(secret.decode())
    finally:
        os.close(reading)
        os.close(writing)
