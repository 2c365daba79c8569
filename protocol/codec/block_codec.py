"""The base of the codecs whose blocks share a scale: division into chunks, scales and levels."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec.base import Bits16, Bits32, Bytes8
from protocol.codec.floats import from_bfloat16
from protocol.codec.numpy_codec import NumpyCodec
from protocol.errors import PeerFault

SMALLEST_SCALE = 0x0280
"""2**-122 as a bfloat16.

A sixteenth of it times an integer is still a normal number, so a processor that flushes subnormal
numbers to zero decodes the same. A block of smaller values becomes zeros: the error is below 1e-37
and stays in the ledger.
"""

_NEUTRAL_SCALE = 0x3F80
"""1.0 as a bfloat16, for blocks beyond the vector's end."""

_EXACT_WEIGHTS = 1 << 16
"""Integers below it, times a bfloat16, are exact in float32."""


class BlockCodec(NumpyCodec):
    """Division into chunks.

    A short last chunk is a whole one padded with zeros, of which the beginning travels.
    """

    # Elements that share a scale.
    block: int
    # Bits of one element.
    level_bits: int
    # The bits of the largest bfloat16 whose product with the largest level is finite.
    largest_scale: int

    def size(self, elements: int) -> int:
        whole, rest = divmod(elements, CHUNK_ELEMENTS)
        return whole * sum(self._parts(CHUNK_ELEMENTS)) + sum(self._parts(rest))

    def _parts(self, elements: int) -> tuple[int, int]:
        """Return the bytes of scales and of levels in a chunk of `elements` elements."""
        return 2 * -(-elements // self.block), -(-elements * self.level_bits // 8)

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        whole, rest = divmod(values.size, CHUNK_ELEMENTS)
        grid, tail = self._cut(out, whole)
        scratch = np.empty(max(whole, 1) * CHUNK_ELEMENTS, np.float32)
        if whole:
            self._encode_chunks(
                values[: whole * CHUNK_ELEMENTS], first, scratch, *self._split(grid)
            )
        if rest:
            padded = np.zeros(CHUNK_ELEMENTS, np.float32)
            padded[:rest] = values[values.size - rest :]
            chunk = np.empty((1, sum(self._parts(CHUNK_ELEMENTS))), np.uint8)
            self._encode_chunks(
                padded, first + values.size - rest, scratch[:CHUNK_ELEMENTS], *self._split(chunk)
            )
            tail[:] = chunk[0, self._travels(rest)]

    def _decode(self, data: Bytes8, out: Vector) -> None:
        self._weighted(data, 1, out)

    def _weighted(self, data: Bytes8, weight: float, out: Vector) -> None:
        """Multiply the scales, one per block, where that rounds nothing.

        A bfloat16 has 8 bits, and a weight below 2**16 leaves at most 24.
        """
        whole, rest = divmod(out.size, CHUNK_ELEMENTS)
        grid, tail = self._cut(data, whole)
        late = False
        if whole:
            scales, levels = self._checked(grid)
            scales, late = _with_weight(scales, weight)
            self._decode_chunks(scales, levels, out[: whole * CHUNK_ELEMENTS])
        if rest:
            np.multiply(self._short(tail, rest), np.float32(weight), out=out[out.size - rest :])
        if late:
            np.multiply(
                out[: whole * CHUNK_ELEMENTS], np.float32(weight), out=out[: whole * CHUNK_ELEMENTS]
            )

    def _short(self, tail: Bytes8, elements: int) -> Vector:
        """Return the short last chunk, decoded."""
        chunk = np.zeros((1, sum(self._parts(CHUNK_ELEMENTS))), np.uint8)
        self._split(chunk)[0][:] = _NEUTRAL_SCALE
        chunk[0, self._travels(elements)] = tail
        padded = np.empty(CHUNK_ELEMENTS, np.float32)
        self._decode_chunks(*self._checked(chunk), padded)
        if padded[elements:].any():
            raise PeerFault("malformed", "an encoding with data behind its last element")
        return padded[:elements]

    def _check(self, data: Bytes8, scratch: Vector) -> None:
        """Check without decoding, except for the short chunk."""
        whole, rest = divmod(scratch.size, CHUNK_ELEMENTS)
        grid, tail = self._cut(data, whole)
        if whole:
            self._checked(grid)
        if rest:
            self._short(tail, rest)

    def _cut(self, data: Bytes8, whole: int) -> tuple[Bytes8, Bytes8]:
        """Return the whole chunks of an encoding, and the bytes of the short one.

        The shape of the whole chunks is (chunks, bytes).
        """
        size = sum(self._parts(CHUNK_ELEMENTS))
        return data[: whole * size].reshape(whole, size), data[whole * size :]

    def _travels(self, elements: int) -> Bits32:
        """Return which bytes of a padded chunk belong to its first `elements`, shape (bytes,)."""
        scales, levels = self._parts(elements)
        behind = self._parts(CHUNK_ELEMENTS)[0]
        return np.concatenate(
            [
                np.arange(scales, dtype=np.uint32),
                np.arange(behind, behind + levels, dtype=np.uint32),
            ]
        )

    def _split(self, chunks: Bytes8) -> tuple[Bits16, Bytes8]:
        """Return views of the scales and of the levels.

        Their shapes are (chunks, blocks) and (chunks, bytes).
        """
        behind = self._parts(CHUNK_ELEMENTS)[0]
        return chunks[:, :behind].view("<u2"), chunks[:, behind:]

    def _checked(self, chunks: Bytes8) -> tuple[Vector, Bytes8]:
        """Return the scales of received chunks, shape (blocks, 1), and their levels.

        Raises `PeerFault` for scales that no encoder makes.
        """
        scales, levels = self._split(chunks)
        ordered = np.ascontiguousarray(scales).reshape(-1)
        sizes = self._scale_size(ordered)
        if sizes.min() < SMALLEST_SCALE or sizes.max() > self.largest_scale:
            raise PeerFault("malformed", "an encoding with a scale that is out of range")
        self._check_levels(levels)
        return from_bfloat16(ordered).reshape(-1, 1), levels

    def _check_levels(self, levels: Bytes8) -> None:
        """Raise `PeerFault` for levels that no encoder makes, if there are any."""

    @abstractmethod
    def _scale_size(self, scales: Bits16) -> Bits16:
        """Return the bits of scales that must lie between the smallest and the largest."""

    @abstractmethod
    def _encode_chunks(
        self, values: Vector, first: int, scratch: Vector, scales: Bits16, levels: Bytes8
    ) -> None:
        """Encode whole chunks.

        `first` is their place in the vector. `scratch` is as long as `values`.
        """

    @abstractmethod
    def _decode_chunks(self, scales: Vector, levels: Bytes8, out: Vector) -> None:
        """Decode whole chunks. `scales` has shape (blocks, 1)."""


def _with_weight(scales: Vector, weight: float) -> tuple[Vector, bool]:
    """Return scales that include the weight, and whether every element must still be multiplied."""
    if weight == 1:
        return scales, False
    if abs(weight) < _EXACT_WEIGHTS and weight == int(weight):
        with np.errstate(over="ignore"):
            heavy = scales * np.float32(weight)
        if np.isfinite(heavy).all():
            return heavy, False
    return scales, True
