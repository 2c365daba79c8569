"""The base of all messages: field types, limits and the signed envelope."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import Digest, digest
from protocol.run.manifest import MAX_GROUP_LIMIT

# A plan of 64 offers of about 700 bytes takes 45 KB; the rest is a reserve for the groups.
MAX_MESSAGE_BYTES = 1 << 18
MAX_NAME_CHARS = 64
MAX_REASON_CHARS = 512

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Text = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
Id = Annotated[str, Meta(max_length=60)]
Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Index = Annotated[int, Meta(ge=0, lt=MAX_GROUP_LIMIT)]
Indices = Annotated[tuple[Index, ...], Meta(max_length=MAX_GROUP_LIMIT)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What msgspec raises for bytes from outside.

UnicodeDecodeError is a ValueError. Deep nesting exhausts the stack.
"""


class Message(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Base of all messages.

    A message is an array whose first element is its tag. The tag is part of the signed bytes of
    rules 2: a class that was renamed keeps its first name as its `tag`. Field names are not on the
    wire.
    """


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message as it travels. Trust nothing in it before `open_signed`.

    Every name by digest is the digest of the bytes that were signed, never of a re-encoding.
    """

    payload: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    peer: Id
    signature: Signature

    @property
    def digest(self) -> Digest:
        """The name of a plan or an inclusion."""
        return digest(self.payload)
