"""Copies and sums of whole vectors, from any thread of the worker. Worker process only.

On a CPU, numpy computes them in the calling thread. torch would start a second team of threads for
a second thread, which would take the processors from training. All vectors are float32 of one
shape.
"""

from __future__ import annotations

import numpy as np
import torch

from protocol.averaging.vector_layout import Vector

# The elements that are tested at a time: their mask stays in the processor's cache.
_BLOCK = 1 << 20


def assign(out: torch.Tensor, value: torch.Tensor) -> None:
    """Set `out` to `value`. The vectors may be on different devices."""
    if _on_cpu(out, value):
        np.copyto(out.numpy(), value.numpy())
    else:
        out.copy_(value)


def add_to(out: torch.Tensor, value: torch.Tensor) -> None:
    """Add `value` to `out`."""
    if _on_cpu(out, value):
        np.add(out.numpy(), value.numpy(), out=out.numpy())
    else:
        out.add_(value)


def assign_difference(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Set `out` to `a - b`. `out` may be one of them, or on another device."""
    if _on_cpu(out, a, b):
        np.subtract(a.numpy(), b.numpy(), out=out.numpy())
    elif out.device == a.device == b.device:
        torch.sub(a, b, out=out)
    else:
        out.copy_(a - b)


def is_finite(vector: Vector) -> bool:
    """Whether all values are finite. `vector` has shape (parameters,)."""
    return all(
        bool(np.isfinite(vector[at : at + _BLOCK]).all()) for at in range(0, vector.size, _BLOCK)
    )


def _on_cpu(*vectors: torch.Tensor) -> bool:
    return not any(vector.is_cuda for vector in vectors)
