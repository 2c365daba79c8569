"""Top-k: only the elements with the greatest magnitudes of every chunk travel.

The rest stays in the ledger. Of 4096 elements 64 travel in 84 bytes, 195 times smaller than
float32. 12-bit indices and 2-bit values without a scale would be 146 times smaller.

  bytes 0 to 3     two magnitudes, bfloat16, the lesser first
  10 bits times k  packed from the lowest bit of each byte on: 2k bits of buckets, 6k bits of places
                   inside the buckets, k signs, k choices of magnitude

*Buckets* are Elias-Fano coded (https://doi.org/10.1145/321812.321820): the chunk is divided into k
buckets of 64, and each bucket's number of chosen elements is written in unary, a one for each and a
zero behind. So bit (bucket + index) is set for every element. The place inside the bucket follows
in 6 bits. An index always takes 8 bits; the entropy of such a choice is 7.4. A short last chunk of
n elements sends k = ceil(n / 64).

*Values* are a sign and one of two magnitudes. The magnitudes minimize the squared error: all k - 1
ways to divide the sorted magnitudes are compared. On the byte GPT's pseudo-gradients, 64 exact
values hold 18.4% of a chunk's square sum, two magnitudes 18.2%, one magnitude 17.9%, eight 18.3%.
Finer values are not worth their bits, and the ledger keeps the difference.

A mean of such contributions has elements in as many places as it has contributors. So `result`
sends one element of 16, in 260 bytes a chunk. With it the byte GPT learns among 4 and among 8 peers
as it does with results in int4, which are 8 times longer, within a third of a round in eight.

The ledger keeps everything, without decay. SparseLoCo (https://arxiv.org/abs/2508.15706) decays its
error by 0.95 a round and steps without momentum, because late elements were meant for another
place. A run with this codec should set `outer.momentum = 0` and `outer.learning_rate = 1`.

Times that decided the numpy code, in microseconds for 65,536 elements: `partition` on magnitudes
takes 26 as integers and 60 as floats, `argpartition` takes 94.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec.base import MAGNITUDE, Bits16, Bits32, Bytes8, Codec, check_peak
from protocol.codec.floats import from_bfloat16, to_bfloat16
from protocol.codec.numpy_codec import NumpyCodec
from protocol.errors import PeerFault

_HEAD_BYTES = 4
"""Bytes of the two magnitudes."""

_INFINITE_HALF = 0x7F80
"""Infinity as a bfloat16. Values with a set sign are greater still."""


Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


class TopK(NumpyCodec):
    """One element of every `bucket` travels.

    `bucket` is a power of two, 2 to 64; with 64 an element takes 0.164 bits. Of a chunk of n
    elements k = ceil(n / bucket) travel, none smaller than one that stays; of equal ones the first.
    The square sum of what an encoding loses is at most 1 - k/2n of the chunk's: the k greatest hold
    k/n of it, and two magnitudes never hold less than half of that. The worst case known,
    magnitudes that fall like 1 / sqrt(index), holds 90%.
    """

    def __init__(self, name: str, bucket: int, result: Codec | None = None) -> None:
        self.name = name
        self._bucket = bucket
        self._place_bits = bucket.bit_length() - 1
        self._result = result

    @property
    def result(self) -> Codec:
        return self._result or self

    def size(self, elements: int) -> int:
        whole, rest = divmod(elements, CHUNK_ELEMENTS)
        return whole * self._chunk_size(CHUNK_ELEMENTS) + self._chunk_size(rest)

    def kept(self, elements: int) -> int:
        """Return how many elements of a chunk travel."""
        return -(-elements // self._bucket)

    def _chunk_size(self, elements: int) -> int:
        return (
            _HEAD_BYTES + -(-self.kept(elements) * (4 + self._place_bits) // 8) if elements else 0
        )

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        for part, where, start in self._rows(values, out):
            where[:] = self._encode_rows(part, first + start)

    def _decode(self, data: Bytes8, out: Vector) -> None:
        for part, where, _ in self._rows(out, data):
            self._decode_rows(where, part)

    def _rows(self, values: Vector, data: Bytes8) -> Iterator[tuple[Vector, Bytes8, int]]:
        """Yield chunks of one length with their first element: the whole ones, then the short one.

        Shapes are (chunks, elements) and (chunks, bytes).
        """
        whole, rest = divmod(values.size, CHUNK_ELEMENTS)
        start, at = whole * CHUNK_ELEMENTS, self.size(whole * CHUNK_ELEMENTS)
        if whole:
            yield values[:start].reshape(whole, -1), data[:at].reshape(whole, -1), 0
        if rest:
            yield values[start:].reshape(1, -1), data[at:].reshape(1, -1), start

    def _encode_rows(self, values: Vector, first: int) -> Bytes8:
        """Encode chunks, shape (chunks, elements) to (chunks, bytes).

        `first` is the place of the first element in the vector.
        """
        magnitudes = values.view(np.uint32) & MAGNITUDE
        check_peak(int(magnitudes.max()), first)
        places = _greatest(magnitudes, self.kept(values.shape[1]))
        return self.pack(places, np.take_along_axis(values, places, axis=1))

    def pack(self, places: Places, values: Vector) -> Bytes8:
        """Encode the chosen elements of each chunk.

        Args:
            places: ascending places, shape (chunks, kept).
            values: the values there, shape (chunks, kept).
        """
        chosen = np.ascontiguousarray(values).view(np.uint32)
        chunks, kept = chosen.shape
        levels, greater = _two_magnitudes((chosen & MAGNITUDE).view(np.float32))
        where = np.zeros((chunks, 2 * kept), np.uint8)
        np.put_along_axis(where, places // self._bucket + np.arange(kept), 1, axis=1)
        inside = (places % self._bucket).astype(np.uint8)[..., None]
        exactly = np.unpackbits(inside, axis=2, count=self._place_bits, bitorder="little").reshape(
            chunks, -1
        )
        signs = (chosen >> np.uint32(31)).astype(np.uint8)
        body = np.concatenate([where, exactly, signs, greater.astype(np.uint8)], axis=1)
        return np.concatenate(
            [levels.astype("<u2").view(np.uint8), np.packbits(body, axis=1, bitorder="little")],
            axis=1,
        )

    def _decode_rows(self, data: Bytes8, out: Vector) -> None:
        """Decode chunks, shape (chunks, bytes) to (chunks, elements).

        Raises `PeerFault` for bytes that `_encode_rows` does not make.
        """
        chunks, elements = out.shape
        kept = self.kept(elements)
        levels = np.ascontiguousarray(data[:, :_HEAD_BYTES]).view("<u2")
        if levels.max() >= _INFINITE_HALF or (levels[:, 0] > levels[:, 1]).any():
            raise PeerFault(
                "malformed", "an encoding with magnitudes that are not finite or not in order"
            )
        bits = np.unpackbits(data[:, _HEAD_BYTES:], axis=1, bitorder="little")
        borders = np.cumsum([2 * kept, self._place_bits * kept, kept, kept])
        where, exactly, signs, greater, behind = np.split(bits, borders, axis=1)
        if behind.any() or (np.count_nonzero(where, axis=1) != kept).any():
            raise PeerFault("malformed", "an encoding with the wrong number of indices")
        buckets = np.flatnonzero(where).reshape(chunks, kept) % (2 * kept) - np.arange(kept)
        inside = np.packbits(
            exactly.reshape(chunks, kept, self._place_bits), axis=2, bitorder="little"
        ).reshape(chunks, kept)
        places = buckets * self._bucket + inside
        if (places[:, -1] >= elements).any() or (places[:, 1:] <= places[:, :-1]).any():
            raise PeerFault(
                "malformed", "an encoding with indices that are out of range or not in order"
            )
        values = from_bfloat16(np.take_along_axis(levels, greater.astype(np.int64), axis=1))
        signed = values.view(np.uint32) | (signs.astype(np.uint32) << np.uint32(31))
        out[:] = 0.0
        np.put_along_axis(out, places, signed.view(np.float32), axis=1)


def _greatest(magnitudes: Bits32, kept: int) -> Places:
    """Return the places of each chunk's `kept` greatest values, ascending, shape (chunks, kept).

    Among equal values the first ones count, so the values alone decide.
    """
    elements = magnitudes.shape[1]
    least = np.partition(magnitudes, elements - kept, axis=1)[:, elements - kept, None]
    chosen = magnitudes >= least
    tied = np.flatnonzero(np.count_nonzero(chosen, axis=1) > kept)
    # Equal values at the border. In real gradients these are chunks that are mostly zero.
    if tied.size:
        above = magnitudes[tied] > least[tied]
        equal = magnitudes[tied] == least[tied]
        room = kept - np.count_nonzero(above, axis=1)
        chosen[tied] = above | (equal & (np.cumsum(equal, axis=1) <= room[:, None]))
    places: Places = np.flatnonzero(chosen).reshape(-1, kept) % elements
    return places


def _two_magnitudes(values: Vector) -> tuple[Bits16, Flags]:
    """Return the two magnitudes with the least squared error.

    Also return which values get the greater one. `values` and this result have shape (chunks,
    kept). The magnitudes are bfloat16, shape (chunks, 2).
    """
    chunks, kept = values.shape
    ordered = np.sort(values, axis=1)
    # `cumsum` adds in order by definition, unlike `sum`.
    sums = np.cumsum(ordered, axis=1, dtype=np.float64)
    below = np.arange(1, kept + 1)
    above = np.maximum(kept - below, 1)
    explained = sums**2 / below + (sums[:, -1:] - sums) ** 2 / above
    # The last of the lesser values.
    split = explained.argmax(axis=1)
    chunk = np.arange(chunks)
    lesser = sums[chunk, split] / below[split]
    greater = (sums[:, -1] - sums[chunk, split]) / above[split]
    # If all values are in one class, the mean of the other is 0.
    means = np.stack([lesser, np.maximum(lesser, greater)], axis=1).astype(np.float32)
    levels = to_bfloat16(means.view(np.uint32))
    border = ordered[chunk, np.minimum(split + 1, kept - 1)]
    return levels, (values >= border[:, None]) & (levels[:, 1:] > levels[:, :1])
