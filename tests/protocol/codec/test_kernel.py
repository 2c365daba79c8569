"""The compiled loops make the same bytes as numpy, whatever the values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec.compiled import CompiledCodec
from protocol.codec.kernel import KernelStatus
from protocol.digest import Buffer
from protocol.errors import PeerFault
from tests.protocol.codec.codecs import REFERENCES
from tests.protocol.codec.kernels import (
    EACH,
    KINDS,
    SEEDS,
    SIZES,
    WEIGHTS,
    both,
    filled,
    kernel,
    made,
)

__all__ = ["kernel"]


@EACH
@given(elements=SIZES, seed=SEEDS, kind=KINDS, over=st.sampled_from([1, 2, 3, 70_001]))
def test_encodings(
    kernel: KernelStatus, name: str, elements: int, seed: int, kind: str, over: int
) -> None:
    values = made(elements, seed, kind)
    data = both(kernel, name, lambda codec: codec.encode(values, over))
    assert isinstance(data, bytes)
    assert len(data) == REFERENCES[name].size(elements)
    decoded = both(
        kernel, name, lambda codec: filled(lambda out: codec.decode(data, out), elements)
    )
    assert isinstance(decoded, bytes)


@EACH
@given(
    elements=st.integers(1, 2 * CHUNK_ELEMENTS + 9),
    seed=SEEDS,
    bad=st.sampled_from([0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001]),
)
def test_infinities_and_nans(
    kernel: KernelStatus, name: str, elements: int, seed: int, bad: int
) -> None:
    values = made(elements, seed, "normal")
    values.view(np.uint32)[seed % elements] = bad
    for over in (1, 5):
        refused = both(kernel, name, lambda codec, over=over: codec.encode(values, over))
        assert isinstance(refused, tuple)
        assert "not finite, so it cannot be offered" in refused[1]


@EACH
@given(
    elements=SIZES,
    seed=SEEDS,
    kind=KINDS,
    flips=st.integers(0, 2),
    noise=st.booleans(),
    shift=st.integers(0, 3),
)
def test_decoding_damaged_encodings(
    kernel: KernelStatus,
    name: str,
    elements: int,
    seed: int,
    kind: str,
    flips: int,
    noise: bool,
    shift: int,
) -> None:
    """Decode encodings with a few changed bits, or with random bytes, at any address."""
    source = np.random.default_rng(seed)
    came = np.frombuffer(
        bytes(shift) + REFERENCES[name].encode(made(elements, seed, kind)), np.uint8
    ).copy()
    body = came[shift:]
    if noise:
        body[:] = source.integers(0, 256, body.size, np.uint8)
    for place in source.integers(0, 8 * body.size, flips if body.size else 0):
        body[place // 8] ^= 1 << place % 8
    data = memoryview(came)[shift:]
    decoded = both(
        kernel, name, lambda codec: filled(lambda out: codec.decode(data, out), elements)
    )
    assert isinstance(decoded, bytes | tuple)
    checked = both(kernel, name, lambda codec: codec.check(data, elements))
    assert checked == (None if isinstance(decoded, bytes) else decoded)
    added = both(kernel, name, lambda codec: filled(lambda out: codec.add(data, -3, out), elements))
    assert isinstance(added, bytes) == isinstance(decoded, bytes)
    mean = both(
        kernel,
        name,
        lambda codec: filled(lambda out: codec.mean([(2, data), (70_001, data)], out), elements),
    )
    assert isinstance(mean, bytes) == isinstance(decoded, bytes)


@EACH
@given(
    elements=SIZES,
    seed=SEEDS,
    kinds=st.lists(KINDS, min_size=1, max_size=4),
    weights=st.lists(WEIGHTS, min_size=4, max_size=4),
)
def test_sums(
    kernel: KernelStatus, name: str, elements: int, seed: int, kinds: list[str], weights: list[int]
) -> None:
    codec = REFERENCES[name]
    parts: list[tuple[int, Buffer]] = [
        (weight, codec.encode(made(elements, seed + i, kind)))
        for i, (weight, kind) in enumerate(zip(weights, kinds, strict=False))
    ]
    mean = both(kernel, name, lambda codec: filled(lambda out: codec.mean(parts, out), elements))
    assert isinstance(mean, bytes)
    assert np.isfinite(np.frombuffer(mean, np.float32)).all()
    for weight, data in parts:
        for sign in (1, -1):
            both(
                kernel,
                name,
                lambda codec, w=sign * weight, d=data: filled(
                    lambda out: codec.add(d, w, out), elements
                ),
            )


@pytest.mark.parametrize(("name", "exponent"), [("bfloat16", 0x7F80), ("float16", 0x7C00)])
def test_every_half(kernel: KernelStatus, name: str, exponent: int) -> None:
    halves = np.arange(1 << 16, dtype="<u2")
    data = halves[(halves & exponent) != exponent].tobytes()
    decoded = both(
        kernel, name, lambda codec: filled(lambda out: codec.decode(data, out), len(data) // 2)
    )
    assert isinstance(decoded, bytes)
    assert (
        both(kernel, name, lambda codec: codec.encode(np.frombuffer(decoded, np.float32))) == data
    )


@pytest.mark.parametrize(
    ("name", "level_bytes", "largest"), [("int8", 4096, 0x7C01), ("int4", 2048, 0x7DFF)]
)
def test_every_scale(kernel: KernelStatus, name: str, level_bytes: int, largest: int) -> None:
    """Decode each scale that an encoder makes, with all kinds of levels in its block."""
    scales = np.arange(0x0280, largest + 1, dtype="<u2")
    if name == "int4":
        scales = np.concatenate([scales, scales | 0x8000])
    in_chunk = (REFERENCES[name].size(CHUNK_ELEMENTS) - level_bytes) // 2
    scales = np.resize(scales, (-(-scales.size // in_chunk), in_chunk))
    levels = np.random.default_rng(2).integers(0, 256, (len(scales), level_bytes), np.uint8)
    levels[levels == 128] = 0
    data = np.concatenate([scales.view(np.uint8), levels], axis=1).tobytes()
    for work in (
        lambda codec: filled(lambda out: codec.decode(data, out), len(scales) * CHUNK_ELEMENTS),
        lambda codec: filled(
            lambda out: codec.mean([(3, data), (65_535, data)], out), len(scales) * CHUNK_ELEMENTS
        ),
    ):
        assert isinstance(both(kernel, name, work), bytes)


@EACH
def test_a_refused_encoding_adds_nothing(kernel: KernelStatus, name: str) -> None:
    elements = 3 * CHUNK_ELEMENTS
    data = bytearray(REFERENCES[name].encode(np.ones(elements, np.float32)))
    at = REFERENCES[name].size(2 * CHUNK_ELEMENTS)
    data[at : at + 4] = b"\xff\xff\xff\xff"
    for codec in (REFERENCES[name], CompiledCodec(REFERENCES[name], lambda: kernel)):
        out = np.full(elements, 0.5, np.float32)
        with pytest.raises(PeerFault):
            codec.add(data, 2, out)
        assert (out == 0.5).all()
