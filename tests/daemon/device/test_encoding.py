"""The torch encoders make numpy's bytes, on the CPU here and on a CUDA device where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.device.encoding import encode
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import REFERENCES

EACH = pytest.mark.parametrize("name", REFERENCES)
SIZES = st.sampled_from(
    [0, 1, 2, 63, 64, 65, 255, 257, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 1]
) | st.integers(0, 3 * CHUNK_ELEMENTS)
KINDS = st.sampled_from(["bits", "normal", "tiny", "greatest", "ties", "zeros", "sparse"])
OVER = st.sampled_from([1, 2, 3, 70_001])
DEVICES = [
    pytest.param("cpu"),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def made(elements: int, seed: int, kind: str) -> Vector:
    """Finite values of many kinds."""
    source = np.random.default_rng(seed)
    bits = source.integers(0, 1 << 32, elements, np.uint32)
    match kind:
        case "bits":
            bits[(bits & 0x7F800000) == 0x7F800000] ^= np.uint32(0x40000000)
            return bits.view(np.float32)
        case "normal":
            return source.standard_normal(elements, np.float32)
        case "tiny":
            return source.standard_normal(elements, np.float32) * np.float32(1e-37)
        case "greatest":
            return (
                bits & np.uint32(0x80000000)
                | source.integers(0x7F7F7000, 0x7F800000, elements, np.uint32)
            ).view(np.float32)
        case "ties":
            return (source.integers(-510, 511, elements) / 2).astype(np.float32)
        case "sparse":
            return source.standard_normal(elements, np.float32) * (
                source.random(elements) < 0.01
            ).astype(np.float32)
    return (bits & np.uint32(0x80000000)).view(np.float32)


@EACH
@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(elements=SIZES, seed=st.integers(0, 1 << 30), kind=KINDS, over=OVER)
def test_the_bytes_are_numpys(
    name: str, device: str, elements: int, seed: int, kind: str, over: int
) -> None:
    values = made(elements, seed, kind)
    data = encode(name, torch.from_numpy(values).to(device), over)
    assert data.device.type == device
    assert data.cpu().numpy().tobytes() == REFERENCES[name].encode(values, over)


@EACH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_leave(name: str, bad: float) -> None:
    values = torch.zeros(CHUNK_ELEMENTS + 9)
    values[CHUNK_ELEMENTS + 3] = bad
    with pytest.raises(ValueError, match="not finite: it cannot be offered"):
        encode(name, values, 3)


@EACH
def test_other_shapes_and_types_are_refused(name: str) -> None:
    for wrong in (torch.ones(16)[::2], torch.ones(8, dtype=torch.float64), torch.ones(2, 4)):
        with pytest.raises(ValueError, match="contiguous float32"):
            encode(name, wrong)


def test_an_unknown_codec() -> None:
    with pytest.raises(KeyError):
        encode("float8", torch.ones(3))


def test_flushed_denormals_change_no_integer_codec() -> None:
    """The worker's CPU flushes them (`device.py`)."""
    values = made(2 * CHUNK_ELEMENTS + 5, 3, "bits") * np.float32(1e-38)
    values[::7] = 1e-41
    assert torch.set_flush_denormal(True)
    try:
        data = {
            name: encode(name, torch.from_numpy(values), 7).numpy().tobytes()
            for name in ("int8", "int4", "float16")
        }
    finally:
        torch.set_flush_denormal(False)
    for name, encoded in data.items():
        assert encoded == REFERENCES[name].encode(values, 7)
