"""The outer step: from the anchor all members hold and the mean they agreed on to the anchor they
will all hold next.

Elementwise float32, one operation at a time: no operation is fused or reordered, so every machine
gets the same bytes. numpy is the definition; a compiled loop (`codec/kernel.c`) does the same in
one pass over memory where it makes the same bytes on a sample.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from protocol.averaging.vector_layout import STATE_CHUNK_BYTES, Vector
from protocol.codec import loops
from protocol.codec.kernel import KernelLoops
from protocol.digest import Digest, leaf_digest, leaves_of, merkle_root
from protocol.run.manifest import Outer


def outer_step(
    anchor: Vector,
    momentum: Vector,
    mean: Vector,
    rules: Outer,
    out_anchor: Vector,
    out_momentum: Vector,
    *,
    rounds: float = 1.0,
) -> None:
    """Nesterov momentum as in DiLoCo (https://arxiv.org/abs/2311.08105): m' = mu m + g, anchor' =
    anchor - lr (g + mu m').

    All six shape (parameters,). `mean` is the averaged pseudo-gradient (anchor minus local); the
    outputs may not overlap the inputs. `rounds` says of how many rounds of training it is
    (`protocol/contribution/round_share.py`): the last of them is stepped as above, g = mean / rounds, and the
    displacement of those before it is taken as it is.
    """
    if rounds > 1.0:
        last = mean * np.float32(1 / rounds)
        outer_step(anchor, momentum, last, rules, out_anchor, out_momentum)
        np.multiply(mean, np.float32(1 - 1 / rounds), out=last)
        np.subtract(out_anchor, last, out=out_anchor)
        return
    compiled = (
        _loops()
        if all(map(_is_plain, (anchor, momentum, mean, out_anchor, out_momentum)))
        else None
    )
    if (
        compiled is None
        or not anchor.size == momentum.size == mean.size == out_anchor.size == out_momentum.size
    ):
        step_in_numpy(anchor, momentum, mean, rules, out_anchor, out_momentum)
    else:
        compiled.outer_step(
            anchor, momentum, mean, rules.learning_rate, rules.momentum, out_anchor, out_momentum
        )


def step_in_numpy(
    anchor: Vector,
    momentum: Vector,
    mean: Vector,
    rules: Outer,
    out_anchor: Vector,
    out_momentum: Vector,
) -> None:
    """What `outer_step` computes, by definition."""
    mu, rate = np.float32(rules.momentum), np.float32(rules.learning_rate)
    np.multiply(momentum, mu, out=out_momentum)
    np.add(out_momentum, mean, out=out_momentum)
    np.multiply(out_momentum, mu, out=out_anchor)
    np.add(out_anchor, mean, out=out_anchor)
    np.multiply(out_anchor, rate, out=out_anchor)
    np.subtract(anchor, out_anchor, out=out_anchor)


def _is_plain(vector: Vector) -> bool:
    """Whether a loop can walk over it by its address."""
    return vector.dtype == np.float32 and vector.ndim == 1 and vector.flags.c_contiguous


@cache
def _loops() -> KernelLoops | None:
    """The compiled loops, unless they step to other bytes than numpy on a sample with magnitudes
    from 1e-42 to 1e38.
    """
    compiled, rules, size = loops(), Outer(), 1027
    bits = np.random.Generator(np.random.PCG64(5)).integers(0, 1 << 32, (3, size), np.uint32)
    # No exponent is that of infinity.
    anchor, momentum, mean = (bits & np.uint32(0xFEFFFFFF)).view(np.float32)
    outputs = np.empty((4, size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        step_in_numpy(anchor, momentum, mean, rules, outputs[0], outputs[1])
    if compiled is not None:
        compiled.outer_step(
            anchor, momentum, mean, rules.learning_rate, rules.momentum, outputs[2], outputs[3]
        )
    return compiled if outputs[:2].tobytes() == outputs[2:].tobytes() else None


LEAF_ELEMENTS = STATE_CHUNK_BYTES // 4
"""Elements of the anchor, or of the momentum, in one leaf of the state's digest. A whole number of chunks."""


def state_leaf(part: Vector) -> Digest:
    """The leaf of one piece of anchor or momentum, shape (up to LEAF_ELEMENTS,)."""
    return leaf_digest(part.astype("<f4", copy=False).data.cast("B"))


def state_leaves(anchor: Vector, momentum: Vector) -> list[Digest]:
    """Leaves of the state's digest: the anchor's bytes, then the momentum's, each cut into
    `STATE_CHUNK_BYTES`.
    """
    return [
        leaf
        for part in (anchor, momentum)
        for leaf in leaves_of(part.astype("<f4", copy=False).data, STATE_CHUNK_BYTES)
    ]


def state_digest(anchor: Vector, momentum: Vector) -> Digest:
    """What a vote names: the root over `state_leaves`."""
    return merkle_root(state_leaves(anchor, momentum))
