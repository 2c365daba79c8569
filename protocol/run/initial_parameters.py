"""The initial parameters of a run, computed from the task's specs and the manifest's seed.

Guarantees that the same specs and seed give the same bytes on every machine, so that genesis needs
no download and no trust. Only operations are used whose result a standard fixes: Philox's integers
(numpy keeps the streams of its bit generators, NEP 19), their top 24 bits as an exact float32, and
one IEEE multiplication. A normal distribution is not among them: logarithm and cosine differ
between math libraries.

Does not guarantee anything for specs in another order: a tensor's values depend on its place among
the specs, not on its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.digest import digest
from protocol.errors import UserError
from protocol.ports.trainer import ParameterSpec

_DOMAIN = b"hypergpu/initial/1\0"
_CHUNK = 1 << 20
"""Raw integers that are drawn at a time: 8 MB of scratch, whatever the model's size."""

_HALF = 1 << 23
"""The middle of 24 bits, the width of a float32's significand."""


def _fill_uniform(out: Vector, bound: float, key: bytes) -> None:
    """Fill `out` with values in [-bound, bound).

    Each 64-bit integer gives two values, the low half first.
    """
    source = np.random.Philox(key=int.from_bytes(key, "little"))
    scale = np.float32(bound / _HALF)
    for start in range(0, out.size, 2 * _CHUNK):
        part = out[start : start + 2 * _CHUNK]
        raw = np.asarray(source.random_raw((part.size + 1) // 2), dtype="<u8")
        halves = raw.view("<u4")[: part.size]
        centred = (halves >> np.uint32(8)).astype(np.int32) - np.int32(_HALF)
        np.multiply(centred.astype(np.float32), scale, out=part)


GIVEN = "given"
"""The rule of a tensor whose values come with the task, such as those of a pretrained model.

Members compare these values by the task's digest.
"""


def initial_parameters(
    specs: Sequence[ParameterSpec], seed: int, given: Vector | None = None
) -> Vector:
    """Return the flat vector of all parameters in the order of the specs, shape (parameters,).

    `given` holds the values of tensors whose rule is "given", at their places in the same shape.

    Raises `UserError("TASK")` for an unknown rule.
    """
    sizes = [prod(spec.shape) for spec in specs]
    flat: Vector = np.zeros(sum(sizes), dtype=np.float32)
    start = 0
    for place, (spec, size) in enumerate(zip(specs, sizes, strict=True)):
        part = flat[start : start + size]
        start += size
        match spec.init:
            case "zeros":
                pass
            case "ones":
                part.fill(1.0)
            case "given" if given is not None:
                part[:] = given[start - size : start]
            case "uniform" if isfinite(spec.bound) and spec.bound >= 0:
                _fill_uniform(
                    part,
                    spec.bound,
                    digest(_DOMAIN, seed.to_bytes(8, "little"), place.to_bytes(8, "little"))[:16],
                )
            case _:
                raise UserError(
                    "TASK",
                    f"The task starts {spec.name!r} with {spec.init!r} (bound {spec.bound}).",
                    why="a tensor must start as zeros, ones or uniform with a finite bound: "
                    "only these are the same bytes on every machine",
                )
    return flat
