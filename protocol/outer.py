"""The outer step: from the anchor all members hold and the mean they agreed on to the anchor they will all hold next.

Elementwise float32 in numpy, one operation at a time: no operation is fused or reordered, so every machine gets the same bytes.
"""

from __future__ import annotations

import numpy as np

from protocol.digest import Digest, leaf_digest, leaves_of, merkle_root
from protocol.layout import STATE_CHUNK_BYTES
from protocol.manifest import Outer
from protocol.ports import Vector


def outer_step(anchor: Vector, momentum: Vector, mean: Vector, rules: Outer, out_anchor: Vector, out_momentum: Vector) -> None:
    """Nesterov momentum as in DiLoCo (https://arxiv.org/abs/2311.08105): m' = mu m + g, anchor' = anchor - lr (g + mu m').

    All six shape (parameters,). `mean` is the averaged pseudo-gradient (anchor minus local); the outputs may not overlap the inputs.
    """
    mu, rate = np.float32(rules.momentum), np.float32(rules.learning_rate)
    np.multiply(momentum, mu, out=out_momentum)
    np.add(out_momentum, mean, out=out_momentum)
    np.multiply(out_momentum, mu, out=out_anchor)
    np.add(out_anchor, mean, out=out_anchor)
    np.multiply(out_anchor, rate, out=out_anchor)
    np.subtract(anchor, out_anchor, out=out_anchor)


LEAF_ELEMENTS = STATE_CHUNK_BYTES // 4
"""Elements of the anchor, or of the momentum, in one leaf of the state's digest. A whole number of chunks."""


def state_leaf(part: Vector) -> Digest:
    """The leaf of one piece of anchor or momentum, shape (up to LEAF_ELEMENTS,)."""
    return leaf_digest(part.astype("<f4", copy=False).data.cast("B"))


def state_leaves(anchor: Vector, momentum: Vector) -> list[Digest]:
    """Leaves of the state's digest: the anchor's bytes, then the momentum's, each cut into `STATE_CHUNK_BYTES`."""
    return [leaf for part in (anchor, momentum) for leaf in leaves_of(part.astype("<f4", copy=False).data, STATE_CHUNK_BYTES)]


def state_digest(anchor: Vector, momentum: Vector) -> Digest:
    """What a vote names: the root over `state_leaves`."""
    return merkle_root(state_leaves(anchor, momentum))
