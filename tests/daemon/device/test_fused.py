"""The fused kernel makes numpy's bytes and leaves numpy's residue; on a GPU it also moves bytes as
fast as the memory does.

Triton's interpreter runs the same kernel on a CPU: `TRITON_INTERPRET=1 pytest
tests/daemon/device/test_fused.py`, with triton installed.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import REFERENCES
from tests.daemon.device.test_encoding import made

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="needs triton, which comes with torch's CUDA builds",
    ),
    pytest.mark.skipif(
        not INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
BOTH = pytest.mark.parametrize("name", ["int8", "int4"])
ELEMENTS = [
    1,
    2,
    3,
    63,
    64,
    65,
    255,
    256,
    257,
    2047,
    CHUNK_ELEMENTS - 1,
    CHUNK_ELEMENTS,
    CHUNK_ELEMENTS + 1,
    3 * CHUNK_ELEMENTS + 333,
]


@BOTH
@pytest.mark.parametrize("kind", ["bits", "normal", "tiny", "greatest", "ties", "zeros", "sparse"])
@pytest.mark.parametrize("weight", [1, 3, 70_001])
def test_bytes_and_residue_are_numpys(name: str, kind: str, weight: int) -> None:
    from daemon.device.fused import encode_with_feedback  # noqa: PLC0415

    for seed, elements in enumerate(ELEMENTS):
        values = made(elements, seed, kind)
        data, residue = encode_with_feedback(name, torch.from_numpy(values).to(DEVICE), weight)
        codec, left = REFERENCES[name], values.copy()
        encoded = codec.encode(values, weight)
        codec.add(encoded, -weight, left)
        assert data.cpu().numpy().tobytes() == encoded
        assert residue.cpu().numpy().tobytes() == left.tobytes()


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_leave(name: str, bad: float) -> None:
    from daemon.device.fused import encode_with_feedback  # noqa: PLC0415

    values = torch.zeros(CHUNK_ELEMENTS + 9, device=DEVICE)
    values[CHUNK_ELEMENTS + 3] = bad
    with pytest.raises(ValueError, match="not finite: it cannot be offered"):
        encode_with_feedback(name, values, 3)
    assert encode_with_feedback(name, torch.zeros(0, device=DEVICE), 3)[0].numel() == 0


@BOTH
@pytest.mark.skipif(INTERPRETED, reason="the interpreter's pace says nothing")
def test_it_is_bound_by_memory(name: str) -> None:
    """At least half of what a plain copy of as many bytes moves a second, on the same device in the
    same minute.
    """
    from daemon.device.fused import encode_with_feedback  # noqa: PLC0415

    values = torch.randn(1 << 27, device=DEVICE)
    moved = values.nbytes * 2 + REFERENCES[name].size(values.numel())
    source = torch.empty(moved // 8, dtype=torch.float32, device=DEVICE)
    target = torch.empty_like(source)

    def seconds(work) -> float:  # type: ignore[no-untyped-def]
        work()
        times = []
        for _ in range(5):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return min(times)

    fused, copied = (
        seconds(lambda: encode_with_feedback(name, values, 7)),
        seconds(lambda: target.copy_(source)),
    )
    print(f"{name}: {moved / fused / 1e9:.0f} GB/s, a copy {moved / copied / 1e9:.0f} GB/s")
    assert fused <= 2 * copied
