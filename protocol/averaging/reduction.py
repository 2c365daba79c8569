"""The sum: a pure function of layout and Cut.

The same contributions in the same order give the same bytes on every node.

weight x value, added in the plan's member order in float32, divided by the included weight. A
reducer and its substitute therefore make the same bytes, and anybody who holds the contributions
can check them.

With several rows each row's mean is made so, in float32, and then the mean of those, weighted by
what each row includes, in the order of the rows. A row's mean travels in the place of its sum since
it is finite always; its weight follows from the Cut.

Each codec sums what it encoded (`Codec.mean`), so that a piece of the sum stays in cache while all
contributions are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec import Codec, codec_named
from protocol.codec.base import check_size
from protocol.digest import Buffer

GROUP_CODEC = "float32"  # between rows nothing is lost

Mean = Callable[[Iterable[tuple[int, Buffer]], Codec, Vector], int]
"""As `weighted_mean`."""


def weighted_mean(parts: Iterable[tuple[int, Buffer]], codec: Codec, out: Vector) -> int:
    """The mean of the encoded `parts`, each (weight in samples, encoding of exactly `out.size`
    elements), in the order given.

    Writes the float32 mean to `out`, shape (elements of the slice,), and returns the included
    weight. All zeros when nothing has weight. The mean is finite always: where contributions are
    too great for float32 it is float32's end, or zero where both ends meet, on every node alike.
    Raises `PeerFault` when an encoding does not decode.
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
    rows: Sequence[tuple[int, Buffer]], out: Vector, mean_of: Mean = weighted_mean
) -> int:
    """The mean over all rows, of each one's (included weight, mean as little-endian float32), in
    the rows' order, without those that include nobody.

    Else as `weighted_mean`.
    """
    return mean_of(rows, codec_named(GROUP_CODEC), out)


def mean_by_plan(
    plan_rows: Sequence[Sequence[int]],
    parts: Mapping[int, tuple[int, Buffer]],
    codec: Codec,
    out: Vector,
    mean_of: Mean = weighted_mean,
) -> int:
    """What all reducers of a plan come to together, for whoever checks them: `parts` are each
    contributor's (weight, encoding) by member index.

    `mean_of` is the sum of the run's rules.
    """
    if len(plan_rows) == 1:
        return mean_of([parts[i] for i in sorted(parts)], codec, out)
    rows: list[tuple[int, Buffer]] = []
    for row in plan_rows:
        mean = np.empty(out.size, np.float32)
        if of_row := [parts[i] for i in sorted(parts) if i in row]:
            rows.append((mean_of(of_row, codec, mean), mean.astype("<f4").tobytes()))
    return mean_of_groups(rows, out, mean_of)
