"""Schedules by certified samples: the learning rate of a step, and the outer rules of a round.

A position is a number of samples: those certified at the anchor and this node's own since. Every
node has the same position at the same certificate, and a node alone advances by its own samples.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from protocol.run.manifest import Inner, Manifest, Outer


def learning_rate_factor(inner: Inner, position: int) -> float:
    """The share of `inner.learning_rate` at which the step that begins at `position` is made.

    The warm-up is linear and counts the step's own batch, so that the first step has a rate above
    0. After the warm-up, the factor falls to `final_factor` at `total_samples`, in a line or in
    half a cosine (https://arxiv.org/abs/1608.03983), and stays there.

    Args:
        inner: the run's inner rules.
        position: samples of the whole run before this step, 0 or more.

    Returns:
        A factor from 0 to 1.
    """
    if position < inner.warmup_samples:
        return min(1.0, (position + inner.step_samples) / inner.warmup_samples)
    if inner.decay == "constant":
        return 1.0
    done = (position - inner.warmup_samples) / (inner.total_samples - inner.warmup_samples)
    left = 1.0 - min(1.0, done)
    if inner.decay == "cosine":
        left = (1.0 - math.cos(math.pi * left)) / 2
    return inner.final_factor + (1.0 - inner.final_factor) * left


def outer_at(manifest: Manifest, certified_samples: int) -> Outer:
    """The outer rules of the certificate whose parent's tip has `certified_samples` samples.

    The momentum rises in a line from 0 over the first `momentum_warmup_samples`. A momentum that
    begins at once carries the first rounds' steps, the largest of the run, into all that follow.

    All members compute the same bytes: one division and one multiplication of float64.
    """
    outer = manifest.outer
    if certified_samples >= outer.momentum_warmup_samples:
        return outer
    share = certified_samples / outer.momentum_warmup_samples
    return replace(outer, momentum=outer.momentum * share)
