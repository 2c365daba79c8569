"""The encoded mean of one certificate: its bytes, and the pieces in which members give it away.

All slices of a plan together are one encoding of the whole vector: a slice begins at a chunk
border, and whole chunks encode alike alone and within a vector. So the mean has one order of bytes,
that of the elements, however the plan divides the vector.

A vote names the root over all slices, and a slice's root is the root over its chunks. A piece is a
run of chunks that is a subtree of its slice. The digests of all pieces lead to the vote's root, and
from then on each piece proves itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from protocol.averaging.group_layout import GroupLayout
from protocol.averaging.vector_layout import (
    CHUNK_ELEMENTS,
    STATE_CHUNK_BYTES,
    Vector,
    element_range,
)
from protocol.codec import Codec, chunk_bytes
from protocol.digest import EMPTY_ROOT, Buffer, Digest, leaves_of, merkle_root


def piece_chunks(codec: Codec) -> int:
    """The chunks of one piece: a power of two, so that a piece is a subtree.

    A piece has at most the bytes of a state's chunk, for the same reason.
    """
    return 1 << max(0, (STATE_CHUNK_BYTES // chunk_bytes(codec)).bit_length() - 1)


class MeanPieces:
    """The pieces of one plan's mean, slice by slice in the order of the plan's members."""

    def __init__(self, layout: GroupLayout, codec: Codec, parameters: int) -> None:
        """`codec` is the codec of the results."""
        self._chunk = chunk_bytes(codec)
        # By slice: how many pieces it has.
        self._counts: list[int] = []
        # The (offset, size) of each piece in the encoding of the whole vector.
        self.sizes: list[tuple[int, int]] = []
        step = piece_chunks(codec)
        for first, last in layout.slices:
            starts = range(first, last, step)
            self._counts.append(len(starts))
            for start in starts:
                begin, end = element_range(start, min(start + step, last), parameters)
                offset = codec.size(begin)
                self.sizes.append((offset, codec.size(end) - offset))

    def digest_of(self, piece: Buffer) -> Digest:
        """The digest of one piece."""
        return merkle_root(leaves_of(piece, self._chunk))

    def root(self, digests: Sequence[Digest]) -> Digest:
        """The root over all slices that the digests of all pieces lead to."""
        roots: list[Digest] = []
        at = 0
        for count in self._counts:
            roots.append(merkle_root(digests[at : at + count]) if count else EMPTY_ROOT)
            at += count
        return merkle_root(roots)


class EncodedMean:
    """The encoding of a whole mean, in one or more runs of bytes."""

    def __init__(self, codec: Codec, parts: Iterable[tuple[int, Buffer]]) -> None:
        """
        Args:
            codec: the codec of the results.
            parts: (first element, encoding) of runs of whole chunks that cover the vector.
        """
        self.codec = codec
        # (first byte, bytes), ascending.
        self.parts = sorted(
            ((codec.size(start), memoryview(data).cast("B")) for start, data in parts),
            key=lambda part: part[0],
        )

    @property
    def size_bytes(self) -> int:
        return sum(len(data) for _, data in self.parts)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes `[offset, offset + size)` of the encoding, fewer at its end."""
        stop = offset + size
        return b"".join(
            bytes(data[max(0, offset - start) : max(0, stop - start)])
            for start, data in self.parts
            if start < stop and offset < start + len(data)
        )

    def decode(self, start: int, out: Vector) -> Vector:
        """Decode elements `[start, start + out.size)`; `start` is at the border of a chunk.

        Raises:
            PeerFault: the encoding does not decode.
        """
        offset = start // CHUNK_ELEMENTS * chunk_bytes(self.codec)
        self.codec.decode(self.read(offset, self.codec.size(out.size)), out)
        return out


def pieces_of(mean: EncodedMean, pieces: MeanPieces) -> list[Digest]:
    """The digests of all pieces of a mean."""
    return [pieces.digest_of(mean.read(offset, size)) for offset, size in pieces.sizes]
