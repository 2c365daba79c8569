"""The two parameter vectors whose losses an audit compares: by the work, and by its reference."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from protocol.audit.reference import ReferenceFit
from protocol.averaging.vector_layout import Vector, element_range
from protocol.codec import Codec


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """The encoding of the chunks [first, stop) of a contribution."""

    first: int
    stop: int
    data: bytes


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The anchor moved by a contribution, and by its reference, shape (parameters,) each.

    Outside the fetched chunks both are the anchor. `reference` is None where there is nothing to
    compare with. `is_zero` says whether the contribution is zero in the fetched chunks.
    """

    work: Vector
    reference: Vector | None
    is_zero: bool


def compare(
    pieces: Sequence[Piece],
    codec: Codec,
    anchor: Vector,
    mean: Vector,
    mine: bytes | None,
    share: float,
) -> Comparison:
    """Decode the fetched chunks of a contribution, and find what to compare them with.

    Args:
        pieces: what was fetched.
        codec: the run's.
        anchor: the anchor of the round, shape (parameters,).
        mean: the round's certified mean, shape (parameters,).
        mine: the encoding of the voter's own contribution; None where it made none.
        share: the contribution's share of the mean's weight.

    Raises:
        PeerFault: "malformed", where a piece does not decode.
    """
    own = None if mine is None else np.empty(anchor.size, np.float32)
    if mine is not None and own is not None:
        codec.decode(mine, own)
    work, fit, is_zero = anchor.copy(), ReferenceFit(), True
    for piece in pieces:
        begin, end = element_range(piece.first, piece.stop, anchor.size)
        values = np.empty(end - begin, np.float32)
        codec.decode(piece.data, values)
        is_zero = is_zero and not values.any()
        fit.add(values, mean[begin:end], None if own is None else own[begin:end])
        work[begin:end] -= values
    found = fit.nearest(share)
    if found is None:
        return Comparison(work=work, reference=None, is_zero=is_zero)
    source = own if found.is_mine and own is not None else mean
    reference = anchor.copy()
    for piece in pieces:
        begin, end = element_range(piece.first, piece.stop, anchor.size)
        reference[begin:end] -= np.float32(found.scale) * source[begin:end]
    return Comparison(work=work, reference=reference, is_zero=is_zero)
