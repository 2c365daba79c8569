"""The parameters at which an audit of work measures losses.

An audit fetches a few chunks of a contribution. It compares the anchor less the contribution with
the anchor less the mean, both in these chunks alone. So both points are one vector, whose chunks
change: four vectors of a large model would be most of a node's memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from protocol.averaging.encoded_mean import EncodedMean
from protocol.averaging.vector_layout import Vector, element_range
from protocol.codec import Codec


class ChunkChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of chunks has of the contribution and of the mean.

    Both have shape (elements of the run,), and begin at element `begin` of the vector.
    """

    begin: int
    work: Vector
    mean: Vector


class AuditPoints:
    """Both points, one at a time."""

    def __init__(self, anchor: Vector, changes: Sequence[ChunkChange]) -> None:
        """`anchor`, shape (parameters,), belongs to this object from now on."""
        self._vector = anchor
        self._changes = [(each, slice(each.begin, each.begin + each.work.size)) for each in changes]
        self._anchor = [anchor[place].copy() for _, place in self._changes]

    def at_the_mean(self) -> Vector:
        """Return the anchor less the mean. The next call changes its memory."""
        for (change, place), before in zip(self._changes, self._anchor, strict=True):
            self._vector[place] = before - change.mean
        return self._vector

    def at_the_work(self) -> Vector:
        """Return the anchor less the contribution. The next call changes its memory."""
        for (change, place), before in zip(self._changes, self._anchor, strict=True):
            self._vector[place] = before - change.work
        return self._vector


def audit_points(
    anchor: Vector,
    mean: EncodedMean,
    codec: Codec,
    runs: Sequence[tuple[int, int]],
    parts: Sequence[bytes],
) -> AuditPoints | None:
    """Return the points of an audit; None where the contribution is zero.

    The anchor's memory becomes that of the points. Raises `PeerFault` where a part does not decode.

    Args:
        anchor: the anchor that the contribution moves, shape (parameters,).
        mean: the certificate's mean.
        codec: the codec of contributions.
        runs: the chunks that were fetched.
        parts: their encodings.
    """
    changes: list[ChunkChange] = []
    for (first, stop), part in zip(runs, parts, strict=True):
        begin, end = element_range(first, stop, anchor.size)
        work = np.empty(end - begin, np.float32)
        codec.decode(part, work)
        of_mean = mean.decode(begin, np.empty_like(work))
        changes.append(ChunkChange(begin=begin, work=work, mean=of_mean))
    return AuditPoints(anchor, changes) if any(each.work.any() for each in changes) else None
