"""The sum: a pure function of layout and inclusion.

The sum adds weight x value in float32, in the plan's order of members, and divides by the included
weight. The same contributions in the same order give the same bytes on every node. A reducer and
its substitute make the same bytes, and anyone with the contributions can check them.

With several groups, each group computes its mean that way. The result is the mean of these means,
weighted by what each group includes, in the order of the groups. A group's mean travels in the
place of its sum because a mean is always finite; its weight follows from the inclusion.

Each codec sums what it encoded (`Codec.mean`): a piece of the sum stays in the cache while all
contributions are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec import Codec, codec_named
from protocol.codec.base import check_size
from protocol.digest import Buffer

# Sums travel between groups without loss.
GROUP_CODEC = "float32"

Mean = Callable[[Iterable[tuple[int, Buffer]], Codec, Vector], int]
"""A function like `weighted_mean`."""


def weighted_mean(parts: Iterable[tuple[int, Buffer]], codec: Codec, out: Vector) -> int:
    """Compute the mean of the encoded parts, in the order given.

    The mean is always finite. Where contributions are too great for float32, it is float32's
    largest value, or zero where both ends meet, alike on every node.

    Args:
        parts: (weight in samples, encoding of exactly `out.size` elements) of each part.
        codec: the codec of the parts.
        out: receives the float32 mean, shape (elements of the slice,); all zeros without weight.

    Returns:
        The included weight.

    Raises:
        PeerFault: an encoding does not decode.
    """
    encodings = list(parts)
    for _, data in encodings:
        check_size(data, codec.size(out.size))
    total = sum(weight for weight, _ in encodings)
    if total:
        codec.mean(encodings, out)
    else:
        for _, data in encodings:
            codec.check(data, out.size)
        out[:] = 0.0
    return total


def mean_of_groups(
    groups: Sequence[tuple[int, Buffer]], out: Vector, mean_of: Mean = weighted_mean
) -> int:
    """Compute the mean over all groups; see `weighted_mean`.

    Args:
        groups: (included weight, mean as little-endian float32) of each group that includes
            anyone, in the order of the groups.
        out: receives the mean, shape (elements of the slice,).
        mean_of: the run's rule.

    Returns:
        The included weight.
    """
    return mean_of(groups, codec_named(GROUP_CODEC), out)


def mean_by_plan(
    plan_groups: Sequence[Sequence[int]],
    parts: Mapping[int, tuple[int, Buffer]],
    codec: Codec,
    out: Vector,
    mean_of: Mean = weighted_mean,
) -> int:
    """Compute what all reducers of a plan compute together, to check them.

    Args:
        plan_groups: the plan's groups.
        parts: (weight, encoding) of each contributor, by member index.
        codec: the codec of the parts.
        out: receives the mean, shape (elements of the slice,).
        mean_of: the run's rule.

    Returns:
        The included weight.
    """
    if len(plan_groups) == 1:
        return mean_of([parts[i] for i in sorted(parts)], codec, out)
    means: list[tuple[int, Buffer]] = []
    for group in plan_groups:
        mean = np.empty(out.size, np.float32)
        if included := [parts[i] for i in sorted(parts) if i in group]:
            means.append((mean_of(included, codec, mean), mean.astype("<f4").tobytes()))
    return mean_of_groups(means, out, mean_of)
