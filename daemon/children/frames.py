"""Frames messages on a socket pair: a length, then that many bytes of msgpack. Never a tensor."""

from __future__ import annotations

from collections.abc import Iterator

# The largest message is a worker's `WorkerReady`: about 100 bytes for each of a model's tensors,
# and the largest models have thousands of tensors.
MAX_FRAME_BYTES = 4 << 20
_LENGTH_BYTES = 4


def frame_body(body: bytes, what: str) -> bytes:
    """Return the body behind its length. Raises `ValueError` above the limit."""
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a {what} of {len(body)} bytes")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Deframer:
    """Turns a stream of bytes into whole bodies.

    Raises `ValueError` for a length above the limit, before it stores any of that body.
    """

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes, and yield the bodies that are complete."""
        self._kept += data
        while len(self._kept) >= _LENGTH_BYTES:
            size = int.from_bytes(self._kept[:_LENGTH_BYTES], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes; {MAX_FRAME_BYTES} are allowed")
            if len(self._kept) < _LENGTH_BYTES + size:
                return
            body = bytes(self._kept[_LENGTH_BYTES : _LENGTH_BYTES + size])
            del self._kept[: _LENGTH_BYTES + size]
            yield body
