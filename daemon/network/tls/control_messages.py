"""The alerts, tickets and key updates of a TLS 1.3 session (RFC 8446, 4.6 and 6)."""

from __future__ import annotations

import ssl
from collections.abc import Callable

# Content types (RFC 8446, 5.1).
ALERT, HANDSHAKE, DATA = 21, 22, 23
CLOSE_NOTIFY, USER_CANCELED = 0, 90
TICKET, KEY_UPDATE = 4, 24

# Alerts that tell the other side what it did wrong (RFC 8446, 6.2).
UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW = 10, 20, 22
ILLEGAL_PARAMETER, DECODE_ERROR = 47, 50

# A handshake message after the handshake. The tickets of all servers that we know have below 400.
MAX_MESSAGE_BYTES = 1 << 16

# Python 3.11's `ssl` has no name for this alert.
_CERTIFICATE_REQUIRED = 116


class RecordError(Exception):
    """The bytes are not a record of this session, or the other side gave up.

    Attributes:
        alert: The code that tells the other side what it did wrong (RFC 8446, 6.2). None after
            an alert of the other side, which has no answer.
    """

    def __init__(self, text: str, alert: int | None) -> None:
        super().__init__(text)
        self.alert = alert


class ControlMessages:
    """Reads the other side's alerts and handshake messages, which may arrive in parts."""

    def __init__(self, update: Callable[[], None], *, from_server: bool) -> None:
        """
        Args:
            update: Called when the other side changes to its next key.
            from_server: Whether the other side is a server: only a server sends tickets.
        """
        self.ended = False
        self._update = update
        self._from_server = from_server
        self._messages = bytearray()
        self._key_asked = False

    @property
    def partial(self) -> bool:
        """Whether a part of a handshake message arrived. Its next part must follow (5.1)."""
        return bool(self._messages)

    def pop_key_request(self) -> bool:
        """Whether the other side asked for another key since the last call."""
        asked, self._key_asked = self._key_asked, False
        return asked

    def read(self, kind: int, content: bytes) -> None:
        """Process one record's content.

        Raises:
            RecordError: For content that the RFC forbids, and for an alert that ends the session.
        """
        if self._messages and kind != HANDSHAKE:
            what = f"a record of kind {kind} between two parts of a handshake message"
            raise RecordError(what, UNEXPECTED_MESSAGE)
        if kind == ALERT:
            self._read_alert(content)
        elif kind == HANDSHAKE and content:
            self._messages += content
            self._read_messages()
        else:
            what = f"{len(content)} bytes of kind {kind} where data belongs"
            raise RecordError(what, UNEXPECTED_MESSAGE)

    def _read_alert(self, content: bytes) -> None:
        if len(content) != 2:
            what = f"{len(content)} bytes of kind {ALERT}, where an alert has two"
            raise RecordError(what, DECODE_ERROR)
        if content[1] == CLOSE_NOTIFY:
            self.ended = True
        elif content[1] != USER_CANCELED:
            raise RecordError(f"the other side gave up: {alert_name(content[1])}", None)

    def _read_messages(self) -> None:
        messages = self._messages
        while len(messages) >= 4:
            end = 4 + int.from_bytes(messages[1:4], "big")
            if end > MAX_MESSAGE_BYTES:
                raise RecordError(f"a handshake message of {end} bytes", ILLEGAL_PARAMETER)
            if len(messages) < end:
                return
            kind, body = messages[0], bytes(messages[4:end])
            del messages[:end]
            if kind == KEY_UPDATE:
                self._follow_update(body)
            elif kind != TICKET or not self._from_server:
                # A ticket is ignored, since sessions are never resumed.
                what = f"a handshake message of kind {kind} after the handshake"
                raise RecordError(what, UNEXPECTED_MESSAGE)

    def _follow_update(self, body: bytes) -> None:
        what = f"a handshake message of kind {KEY_UPDATE} after the handshake, {body[:8].hex()}"
        if len(body) != 1:
            raise RecordError(what, DECODE_ERROR)
        if body[0] > 1:
            raise RecordError(what, ILLEGAL_PARAMETER)
        # A key update must end its record (5.1).
        if self._messages:
            raise RecordError(what + ", with more behind it", UNEXPECTED_MESSAGE)
        self._key_asked = self._key_asked or body == b"\1"
        self._update()


def alert_name(code: int) -> str:
    """An alert's name in words, or its number."""
    if code == _CERTIFICATE_REQUIRED:
        return "certificate required"
    try:
        name = ssl.AlertDescription(code).name
    except ValueError:
        return f"alert {code}"
    return name.removeprefix("ALERT_DESCRIPTION_").lower().replace("_", " ")
