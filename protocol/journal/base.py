"""The base of all journal events."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class JournalEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that happened to this node.

    Events whose `durable` is False are frequent measurements: they are folded but not written to
    disk.
    """

    # Unix seconds. The journal's writer sets this field.
    at: float = 0.0
    durable: ClassVar[bool] = True
