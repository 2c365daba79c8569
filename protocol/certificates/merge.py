"""Merging two branches: a certificate with two parents, whose state is a pure function of theirs.

Two certificates with one parent, or two halves of a partition, are both valid. Their anchors and
momenta are averaged, weighted by the samples certified on each side since they parted, with the
parents in the order of their hashes. Adding one side's whole displacement through the outer
optimizer would overshoot. The merge's ancestry then holds the contributions of both sides, and no
member offers its work again.
"""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest, digest

_DOMAIN = b"hypergpu/merge/1\0"


def merge_parents(a: Digest, b: Digest) -> tuple[Digest, Digest]:
    """The two parents in their order."""
    return (a, b) if a < b else (b, a)


def merge_round(parents: tuple[Digest, ...]) -> Digest:
    """The name of a round: its parent's hash, or for a merge a digest of both hashes."""
    return parents[0] if len(parents) == 1 else digest(_DOMAIN, *parents)


def merge_vectors(first: Vector, second: Vector, weights: tuple[int, int], out: Vector) -> None:
    """The weighted mean of two vectors of shape (parameters,) into `out`, which may be one of them.

    Elementwise float32, one operation at a time. Two branches without certified samples (0, 0)
    count equally.
    """
    one, two = weights if any(weights) else (1, 1)
    scaled = np.multiply(second, np.float32(two))
    np.multiply(first, np.float32(one), out=out)
    np.add(out, scaled, out=out)
    np.divide(out, np.float32(one + two), out=out)
