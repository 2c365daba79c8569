"""Defines the messages that all children share. A child's own `messages.py` has the rest."""

from __future__ import annotations

import msgspec

from daemon.children.frames import frame_body


class ChildMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of the messages between a node and a child. The tag is the class's name."""


class CommandDone(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The command with this `id` is done, and has no result."""

    id: int


_encoder = msgspec.msgpack.Encoder()


def frame(message: ChildMessage) -> bytes:
    """Return the message behind its length. Raises `ValueError` above the limit."""
    return frame_body(_encoder.encode(message), type(message).__name__)
