"""What all children and their node say alike: msgpack records behind a length.

What is said besides stands in a child's own `messages.py`.
"""

from __future__ import annotations

import msgspec

from daemon.children.frames import frame_body


class ChildMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of everything said between a node and a child; each kind is told by its class's name."""


class CommandDone(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The command with this `id` was done, and there is nothing to tell of it."""

    id: int


_encoder = msgspec.msgpack.Encoder()


def frame(message: ChildMessage) -> bytes:
    """The message behind its length. Raises `ValueError` above the limit."""
    return frame_body(_encoder.encode(message), type(message).__name__)
