"""The outer step: from the members' common anchor and the mean to their next common anchor.

It is elementwise float32, one operation at a time. No operation is fused or reordered, so every
machine computes the same bytes. numpy is the definition. A compiled loop (`codec/kernel.c`) does
the same in one pass over memory, if it makes the same bytes on a sample.
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
    """Step with Nesterov momentum: m' = mu m + g, anchor' = anchor - lr (g + mu m').

    This is the outer optimizer of DiLoCo (https://arxiv.org/abs/2311.08105). All vectors have shape
    (parameters,). The outputs may not overlap the inputs.

    Args:
        anchor: the members' anchor.
        momentum: its momentum.
        mean: the averaged pseudo-gradient (anchor minus local).
        rules: learning rate lr and momentum mu.
        out_anchor: receives the next anchor.
        out_momentum: receives the next momentum.
        rounds: the rounds of training behind the mean (`protocol/contribution/round_share.py`).
            The last of them is stepped as above, g = mean / rounds. The displacement of the others
            is applied as it is.
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


def outer_step_4(
    anchor: Vector,
    momentum: Vector,
    mean: Vector,
    rules: Outer,
    out_anchor: Vector,
    out_momentum: Vector,
    *,
    rounds: float = 1.0,
) -> None:
    """Step as `outer_step` does; a run without momentum keeps a momentum of zeros.

    The anchors are the same. Zeros need no memory where nothing has been written, so a node saves
    8 bytes a parameter.
    """
    if rules.momentum or rules.momentum_warmup_samples:
        outer_step(anchor, momentum, mean, rules, out_anchor, out_momentum, rounds=rounds)
        return
    rate = np.float32(rules.learning_rate)
    last = mean if rounds <= 1.0 else mean * np.float32(1 / rounds)
    np.multiply(last, rate, out=out_anchor)
    np.subtract(anchor, out_anchor, out=out_anchor)
    if rounds > 1.0:
        np.multiply(mean, np.float32(1 - 1 / rounds), out=last)
        np.subtract(out_anchor, last, out=out_anchor)
    if out_momentum.any():
        out_momentum[:] = 0.0


def step_in_numpy(
    anchor: Vector,
    momentum: Vector,
    mean: Vector,
    rules: Outer,
    out_anchor: Vector,
    out_momentum: Vector,
) -> None:
    """The definition of `outer_step` for one round."""
    mu, rate = np.float32(rules.momentum), np.float32(rules.learning_rate)
    np.multiply(momentum, mu, out=out_momentum)
    np.add(out_momentum, mean, out=out_momentum)
    np.multiply(out_momentum, mu, out=out_anchor)
    np.add(out_anchor, mean, out=out_anchor)
    np.multiply(out_anchor, rate, out=out_anchor)
    np.subtract(anchor, out_anchor, out=out_anchor)


def _is_plain(vector: Vector) -> bool:
    """Whether a compiled loop can walk over the vector by its address."""
    return vector.dtype == np.float32 and vector.ndim == 1 and vector.flags.c_contiguous


@cache
def _loops() -> KernelLoops | None:
    """The compiled loops, if they make numpy's bytes on a sample.

    The sample has magnitudes from 1e-42 to 1e38.
    """
    compiled, rules, size = loops(), Outer(learning_rate=0.7, momentum=0.9), 1027
    bits = np.random.Generator(np.random.PCG64(5)).integers(0, 1 << 32, (3, size), np.uint32)
    # The mask clears a bit of the exponent, so that no value is infinite.
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
"""The elements of anchor or momentum in one leaf of the state's digest: whole chunks."""


def state_leaf(part: Vector) -> Digest:
    """The leaf of one piece of anchor or momentum, shape (up to LEAF_ELEMENTS,)."""
    return leaf_digest(part.astype("<f4", copy=False).data.cast("B"))


def state_leaves(anchor: Vector, momentum: Vector) -> list[Digest]:
    """The leaves of the state's digest: the anchor's bytes, then the momentum's.

    A leaf has `STATE_CHUNK_BYTES` bytes.
    """
    return [
        leaf
        for part in (anchor, momentum)
        for leaf in leaves_of(part.astype("<f4", copy=False).data, STATE_CHUNK_BYTES)
    ]


def state_digest(anchor: Vector, momentum: Vector) -> Digest:
    """The digest that a vote names: the root over `state_leaves`."""
    return merkle_root(state_leaves(anchor, momentum))
