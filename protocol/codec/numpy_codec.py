"""The base of all codecs, in numpy: it works piece by piece.

A subclass encodes and decodes one piece. Checking, adding and averaging decode a piece at a time.
The numpy codecs define the bytes. The compiled loops (`kernel.py`) make the same bytes faster, if
they exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from protocol.averaging.clip import (
    ClipPart,
    ClipScale,
    Doubles,
    bounds,
    chunk_energies,
    factors,
)
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, chunk_count
from protocol.codec.base import Bytes8, Codec, check_room, check_size, check_vector
from protocol.codec.memory import SMALLEST_FRESH, fresh_bytes
from protocol.digest import Buffer

PIECE_CHUNKS = 32
"""Chunks that are processed at a time: 512 KiB of float32 and its scratch stay in cache.

Measured by encoding 10 million elements in int8: pieces of 16 chunks take 1.3 times as long and
pieces of 4 take 2.7 times, because numpy spends a fixed time on each call. All at once takes 1.6
times as long. Pieces of 64 gain 7%.
"""

PIECE_ELEMENTS = PIECE_CHUNKS * CHUNK_ELEMENTS

_LARGEST = float(np.finfo(np.float32).max)


class NumpyCodec(ABC):
    """A codec in numpy, whose subclasses encode and decode one piece."""

    name: str
    lossless = False

    @property
    def result(self) -> Codec:
        return self

    @abstractmethod
    def size(self, elements: int) -> int:
        """See `Codec.size`."""

    @abstractmethod
    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        """Encode a piece of at least one element.

        `first` is its place in the vector, for the message of the `ValueError`.
        """

    @abstractmethod
    def _decode(self, data: Bytes8, out: Vector) -> None:
        """Decode a piece of at least one element. Raises `PeerFault`."""

    def _check(self, data: Bytes8, scratch: Vector) -> None:
        """Raise what decoding a piece would raise.

        `scratch` has the length of the piece, for codecs that must decode to check.
        """
        self._decode(data, scratch)

    def _weighted(self, data: Bytes8, weight: float, out: Vector) -> None:
        """Decode a piece and multiply it by the weight, which rounds once."""
        self._decode(data, out)
        np.multiply(out, np.float32(weight), out=out)

    def encode(self, values: Vector, over: float = 1.0) -> bytes:
        check_vector(values)
        size = self.size(values.size)
        if size < SMALLEST_FRESH:
            small = np.empty(size, np.uint8)
            self._encode_all(values, over, small)
            return small.tobytes()
        data, out = fresh_bytes(size)
        self._encode_all(values, over, out)
        return data

    def encode_into(self, values: Vector, over: float, out: memoryview) -> None:
        check_vector(values)
        check_room(out, self.size(values.size))
        if values.size:
            self._encode_all(values, over, np.frombuffer(out, np.uint8))

    def _encode_all(self, values: Vector, over: float, out: Bytes8) -> None:
        quotient = np.empty(_scratch(values.size) if over != 1.0 else 0, np.float32)
        for piece, where in self._pieces(values.size):
            part = values[piece]
            if over != 1.0:
                # The encoder looks for NaNs.
                with np.errstate(invalid="ignore"):
                    part = np.divide(part, np.float32(over), out=quotient[: part.size])
            self._encode(part, piece.start, out[where])

    def check(self, data: Buffer, elements: int) -> None:
        source = self._source(data, elements)
        value = np.empty(_scratch(elements), np.float32)
        for piece, where in self._pieces(elements):
            self._check(source[where], value[: piece.stop - piece.start])

    def decode(self, data: Buffer, out: Vector) -> None:
        check_vector(out, written=True)
        source = self._source(data, out.size)
        for piece, where in self._pieces(out.size):
            self._decode(source[where], out[piece])

    def add(self, data: Buffer, weight: float, out: Vector) -> None:
        check_vector(out, written=True)
        # If the encoding is refused, nothing may be added.
        self.check(data, out.size)
        source = self._source(data, out.size)
        value = np.empty(_scratch(out.size), np.float32)
        for piece, where in self._pieces(out.size):
            part = value[: piece.stop - piece.start]
            # The values of a peer may overflow.
            with np.errstate(over="ignore", invalid="ignore"):
                self._weighted(source[where], weight, part)
                out[piece] += part

    def mean(self, parts: Sequence[tuple[int, Buffer]], out: Vector) -> None:
        check_vector(out, written=True)
        sources = [(weight, self._source(data, out.size)) for weight, data in parts]
        total = np.float32(sum(weight for weight, _ in parts))
        value = np.empty(_scratch(out.size), np.float32)
        for piece, where in self._pieces(out.size):
            mean = out[piece]
            # The mean is checked once, below.
            with np.errstate(over="ignore", invalid="ignore"):
                for i, (weight, source) in enumerate(sources):
                    part = value[: mean.size] if i else mean
                    self._weighted(source[where], weight, part)
                    np.add(mean if i else np.float32(0.0), part, out=mean)
                np.divide(mean, total, out=mean)
            if not np.isfinite(mean).all():
                np.nan_to_num(mean, copy=False, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)

    def clipped_mean(self, parts: Sequence[ClipPart], scale: ClipScale, out: Vector) -> Doubles:
        check_vector(out, written=True)
        sources = [self._source(part.data, out.size) for part in parts]
        total = np.float32(sum(part.weight for part in parts))
        votes, ratios = [part.votes for part in parts], [part.ratio for part in parts]
        weights = np.array([float(part.weight) for part in parts])
        kept, value = np.zeros(len(parts)), np.empty(_scratch(out.size), np.float32)
        for piece, where in self._pieces(out.size):
            mean = out[piece]
            part = value[: mean.size]
            roots = np.empty((len(parts), chunk_count(mean.size)))
            for i, source in enumerate(sources):
                self._decode(source[where], part)
                roots[i] = np.sqrt(chunk_energies(part))
            bound = np.empty(roots.shape[1])
            whole = mean.size // CHUNK_ELEMENTS
            for chunks, elements in (
                (slice(0, whole), CHUNK_ELEMENTS),
                (slice(whole, None), mean.size % CHUNK_ELEMENTS),
            ):
                bound[chunks] = bounds(roots[:, chunks], votes, scale.floor(elements))
            shares = factors(roots, bound, ratios)
            for chunk in range(shares.shape[1]):
                kept += shares[:, chunk]
            coefficients = (weights[:, None] * shares).astype(np.float32)
            mean[:] = 0.0
            # The mean is checked once, below.
            with np.errstate(over="ignore", invalid="ignore"):
                for i, source in enumerate(sources):
                    self._decode(source[where], part)
                    part *= np.repeat(coefficients[i], CHUNK_ELEMENTS)[: part.size]
                    mean += part
                np.divide(mean, total, out=mean)
            if not np.isfinite(mean).all():
                np.nan_to_num(mean, copy=False, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
        return kept

    def _source(self, data: Buffer, elements: int) -> Bytes8:
        check_size(data, self.size(elements))
        return np.frombuffer(data, np.uint8)

    def _pieces(self, elements: int) -> Iterator[tuple[slice, slice]]:
        """Yield the slice of elements and the slice of bytes of each piece."""
        for start in range(0, elements, PIECE_ELEMENTS):
            stop = min(start + PIECE_ELEMENTS, elements)
            yield slice(start, stop), slice(self.size(start), self.size(stop))


def _scratch(elements: int) -> int:
    return min(elements, PIECE_ELEMENTS)
