"""The compiled clipped mean makes the same bytes as numpy (story trust-clip-bits)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.clip import RATIO, ClipPart, ClipScale
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec
from protocol.codec.compiled import CompiledCodec
from protocol.codec.kernel import KernelStatus
from tests.protocol.codec.codecs import REFERENCES
from tests.protocol.codec.kernels import EACH, KINDS, NAMES, SEEDS, SIZES, both, kernel, made

__all__ = ["kernel"]

CASES = 3000
# The unoptimized loops differ in vector width alone.
PLAIN_CASES = 500


def _clipped(
    codec: Codec, parts: list[ClipPart], scale: ClipScale, elements: int
) -> tuple[bytes, bytes]:
    out = np.full(elements, 0.75, np.float32)
    kept = codec.clipped_mean(parts, scale, out)
    return out.tobytes(), kept.tobytes()


def _values(random: np.random.Generator, elements: int) -> Vector:
    """Values of one magnitude from 1e-45 to 3e38, or every finite pattern of bits."""
    if random.random() < 0.2:
        return made(elements, int(random.integers(1 << 30)), "bits")
    power = random.uniform(-45, 38.4)
    with np.errstate(over="ignore"):
        values = (random.standard_normal(elements) * 10.0**power).astype(np.float32)
    return np.clip(values, np.float32(-3e38), np.float32(3e38))


def test_random_cases(kernel: KernelStatus, request: pytest.FixtureRequest) -> None:
    random = np.random.default_rng(16)
    clipped, cases = 0, PLAIN_CASES if "plain C" in request.node.name else CASES
    for case in range(cases):
        codec = REFERENCES[NAMES[case % len(NAMES)]]
        elements = int(random.integers(1, CHUNK_ELEMENTS + 1))
        base = _values(random, elements)
        parts = []
        for _ in range(random.integers(1, 9)):
            # Parts of one length, so that medians decide, or of any.
            near = random.random() < 0.7
            values = random.permutation(base) if near else _values(random, elements)
            if random.random() < 0.2:
                values = np.zeros(elements, np.float32)
            parts.append(
                ClipPart(
                    weight=int(random.integers(1, 1 << random.integers(1, 40))),
                    data=codec.encode(values),
                    votes=bool(random.random() < 0.7),
                    ratio=RATIO * float(random.uniform(1, 64)) if random.random() < 0.3 else RATIO,
                )
            )
        norm = float(np.linalg.norm(base.astype(np.float64))) * 10.0 ** random.uniform(-3, 2)
        scale = ClipScale(
            norm=norm if random.random() < 0.7 else 0.0,
            parameters=elements * int(random.integers(1, 1000)),
        )
        wanted = _clipped(codec, parts, scale, elements)
        compiled = CompiledCodec(codec, lambda: kernel)
        assert _clipped(compiled, parts, scale, elements) == wanted, f"case {case}"
        mean, kept = (np.frombuffer(part, kind) for part, kind in zip(wanted, "fd", strict=True))
        assert np.isfinite(mean).all()
        assert ((kept >= 0.0) & (kept <= 1.0)).all()
        clipped += bool((kept < 1.0).any())
    assert cases / 4 < clipped < cases, "the cases are clipped and not clipped"


@EACH
@given(
    elements=SIZES.filter(bool),
    seed=SEEDS,
    kinds=st.lists(KINDS, min_size=1, max_size=5),
    norm=st.sampled_from([0.0, 1e-40, 1.0, 1e30]),
)
def test_many_chunks_of_every_kind(
    kernel: KernelStatus, name: str, elements: int, seed: int, kinds: list[str], norm: float
) -> None:
    codec = REFERENCES[name]
    parts = [
        ClipPart(weight=i + 1, data=codec.encode(made(elements, seed + i, kind)), votes=bool(i % 3))
        for i, kind in enumerate(kinds)
    ]
    scale = ClipScale(norm=norm, parameters=elements)
    assert isinstance(
        both(kernel, name, lambda codec: _clipped(codec, parts, scale, elements)), tuple
    )


@EACH
@given(seed=SEEDS, flips=st.integers(1, 3))
def test_damaged_encodings_are_refused_alike(
    kernel: KernelStatus, name: str, seed: int, flips: int
) -> None:
    """NaN, infinity and bytes that no encoder makes."""
    elements, random = CHUNK_ELEMENTS + 100, np.random.default_rng(seed)
    codec = REFERENCES[name]
    came = np.frombuffer(codec.encode(made(elements, seed, "normal")), np.uint8).copy()
    for place in random.integers(0, 8 * came.size, flips):
        came[place // 8] ^= 1 << place % 8
    if name.startswith(("float", "bfloat")) and seed % 2:
        came[: 4 if name == "float32" else 2] = 0xFF
    parts = [
        ClipPart(weight=3, data=codec.encode(made(elements, seed + 1, "normal")), votes=True),
        ClipPart(weight=2, data=came.tobytes(), votes=True),
    ]
    scale = ClipScale(norm=60.0, parameters=elements)
    found = both(kernel, name, lambda codec: _clipped(codec, parts, scale, elements))
    decoded = both(
        kernel, name, lambda codec: codec.decode(came.tobytes(), np.empty(elements, np.float32))
    )
    assert (decoded is None) == isinstance(found[0], bytes)  # type: ignore[index]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_vector(kernel: KernelStatus, name: str) -> None:
    parts = [ClipPart(weight=1, data=b"", votes=True)]
    both(kernel, name, lambda codec: _clipped(codec, parts, ClipScale(norm=1.0, parameters=1), 0))
