"""Replays a certificate: from its parent's state and its encoded mean to its own state.

A member that missed rounds, and a node that starts again, holds an older state. The certificates
since then name, each, the root of its mean and the digest of its state. The means are a fraction of
the state's size where the codec is lossy, so replaying them costs less than a download of the
state, and it needs nobody who still holds that state.

A merge has no mean. Its state is the average of two branches, and only a copy brings it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from protocol.averaging.encoded_mean import EncodedMean
from protocol.averaging.outer_step import LEAF_ELEMENTS, state_leaf
from protocol.averaging.plan_sum import step_terms
from protocol.averaging.step_norm import add_in_order, energies, limit_step
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.rules.registry import OuterStep, RuleSet
from protocol.run.manifest import Outer

State = tuple[Vector, Vector]
"""Anchor and momentum, shape (parameters,) each."""


def is_merge(certificate: OpenCertificate) -> bool:
    return len(certificate.outcome.parents) == 2


Mean = Callable[[int, Vector], Vector]
"""`mean(start, out)` returns elements `[start, start + out.size)` of the averaged pseudo-gradient,
in `out` or in place.
"""


def limited(mean: Mean, parameters: int, usual: float | None) -> tuple[float, float]:
    """Return (factor, norm): by what a mean is multiplied, and its L2 norm then.

    Args:
        mean: the averaged pseudo-gradient, decoded.
        parameters: its size.
        usual: the usual norm of a step of this round; 0.0 where it is not known, None where steps
            have no limit. The norm is not computed then.
    """
    if usual is None:
        return 1.0, 0.0
    piece, energy = np.empty(min(LEAF_ELEMENTS, parameters), np.float32), 0.0
    for start in range(0, parameters, LEAF_ELEMENTS):
        size = min(LEAF_ELEMENTS, parameters - start)
        energy = add_in_order(energy, energies(mean(start, piece[:size])))
    return limit_step(energy, usual)


def step_state(
    before: State,
    mean: Mean,
    after: State,
    *,
    step: OuterStep,
    outer: Outer,
    rounds: float,
    factor: float = 1.0,
) -> list[Digest]:
    """Apply the outer step to a state, leaf by leaf, so that each leaf is hashed while in cache.

    Args:
        before: the parent's state.
        mean: the averaged pseudo-gradient.
        after: receives the next state. It may be `before` itself.
        step: the run's outer step.
        outer: the learning rate and the momentum.
        rounds: the rounds of training behind the mean.
        factor: by what the mean is multiplied first, in float32.

    Returns:
        The leaves of the state's digest.
    """
    parameters = before[0].size
    leaf = min(LEAF_ELEMENTS, parameters)
    piece = np.empty(leaf, np.float32)
    stepped = np.empty((2, leaf), np.float32) if after[0] is before[0] else None
    values: list[Digest] = []
    momenta: list[Digest] = []
    for start in range(0, parameters, LEAF_ELEMENTS):
        at = slice(start, min(start + LEAF_ELEMENTS, parameters))
        size = at.stop - at.start
        averaged = mean(start, piece[:size])
        if factor != 1.0:
            # The mean may be the memory of a result that others still read.
            averaged = np.multiply(averaged, np.float32(factor), out=piece[:size])
        value, momentum = (
            (after[0][at], after[1][at])
            if stepped is None
            # The step's outputs may not overlap its inputs.
            else (stepped[0, :size], stepped[1, :size])
        )
        step(before[0][at], before[1][at], averaged, outer, value, momentum, rounds=rounds)
        if stepped is not None:
            after[0][at] = value
            # Zeros over zeros would take memory.
            if momentum.any() or after[1][at].any():
                after[1][at] = momentum
        values.append(state_leaf(value))
        momenta.append(state_leaf(momentum))
    return values + momenta


def replay(
    state: State,
    certificate: OpenCertificate,
    mean: EncodedMean,
    *,
    rules: RuleSet,
    outer: Outer,
) -> list[Digest]:
    """Turn the state of a certificate's only parent into the certificate's own state, in place.

    The caller compares the root over the leaves with the digest that the votes name.

    Args:
        state: the parent's state; it becomes the next state.
        certificate: the certificate after it.
        mean: the certificate's mean, checked against the root in its votes.
        rules: the run's rules.
        outer: the effective outer rules of this certificate.

    Returns:
        The leaves of the state's digest.

    Raises:
        PeerFault: the mean does not decode.
    """
    terms = step_terms(certificate.plan, certificate.contributors)
    factor, _ = limited(mean.decode, state[0].size, terms.usual)
    return step_state(
        state,
        mean.decode,
        state,
        step=rules.outer_step,
        outer=outer,
        rounds=terms.rounds,
        factor=factor,
    )
