"""The compiled loops make numpy's bytes, whatever the values; and they are turned away when they
would not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocol.codec
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec, entries, implementation
from protocol.codec.base import Bytes8
from protocol.codec.blocks import Int8
from protocol.codec.compiled import CompiledCodec
from protocol.codec.kernel import REVISION, KernelStatus, load
from protocol.digest import Buffer
from protocol.errors import PeerFault
from tests.protocol.codec.codecs import REFERENCES

NAMES = [entry.name for entry in entries() if entry.has_loops]
LOOPED = [REFERENCES[name] for name in NAMES]
EACH = pytest.mark.parametrize("name", NAMES)
SOURCE = Path(protocol.codec.__file__).with_name("kernel.c")
SIZES = st.sampled_from(
    [
        0,
        1,
        2,
        3,
        63,
        64,
        65,
        127,
        255,
        256,
        257,
        1023,
        1025,
        CHUNK_ELEMENTS - 1,
        CHUNK_ELEMENTS,
        CHUNK_ELEMENTS + 1,
    ]
)
SIZES |= st.integers(0, 3 * CHUNK_ELEMENTS)
SEEDS = st.integers(0, 1 << 30)
KINDS = st.sampled_from(["bits", "normal", "tiny", "denormal", "greatest", "ties", "zeros"])
WEIGHTS = st.integers(1, 200) | st.integers(1, 1 << 17) | st.just((1 << 40) + 1)


def made(elements: int, seed: int, kind: str) -> Vector:
    """Finite values of many kinds. `bits` has every finite pattern."""
    source = np.random.default_rng(seed)
    bits = source.integers(0, 1 << 32, elements, np.uint32)
    signs = bits & np.uint32(0x80000000)
    match kind:
        case "bits":
            bits[(bits & 0x7F800000) == 0x7F800000] ^= np.uint32(0x40000000)
            return bits.view(np.float32)
        case "normal":
            return source.standard_normal(elements, np.float32)
        case "tiny":
            return source.standard_normal(elements, np.float32) * np.float32(1e-37)
        case "denormal":
            return (bits & np.uint32(0x807FFFFF)).view(np.float32)
        case "greatest":
            return (signs | source.integers(0x7F7F7000, 0x7F800000, elements, np.uint32)).view(
                np.float32
            )
        case "ties":
            return (source.integers(-510, 511, elements) / 2).astype(np.float32)
    return signs.view(np.float32)


@pytest.fixture(scope="module", params=["vectors of the processor", "plain C"])
def kernel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> KernelStatus:
    """The loops twice: as an installation builds them, and without any processor's instructions,
    hardly optimized.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    options = ["-O3"] if request.param.startswith("vectors") else ["-O1", "-DPLAIN"]
    out = tmp_path_factory.mktemp("kernel") / "kernel.so"
    strict = ["-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    subprocess.run([compiler, *options, *strict, "-o", str(out), str(SOURCE)], check=True)
    loaded = load(out, LOOPED)
    assert loaded.reason == "compiled"
    return loaded


def outcome(work: Callable[[], object]) -> object:
    """What came of it, or the refusal in its words; never a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return work()
        except (PeerFault, ValueError) as refused:
            return type(refused), str(refused)


def both(kernel: KernelStatus, name: str, work: Callable[[Codec], object]) -> object:
    """Asserts that they do the same, and returns it."""
    compiled, reference = CompiledCodec(REFERENCES[name], lambda: kernel), REFERENCES[name]
    done = outcome(lambda: work(compiled))
    assert done == outcome(lambda: work(reference))
    return done


def filled(work: Callable[[Vector], None], elements: int) -> bytes:
    out = np.full(elements, 0.75, np.float32)
    work(out)
    return out.tobytes()


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
def test_what_is_no_number(
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
def test_decoding_what_came(
    kernel: KernelStatus,
    name: str,
    elements: int,
    seed: int,
    kind: str,
    flips: int,
    noise: bool,
    shift: int,
) -> None:
    """Encodings that a few bits, or everything, changed on the way, at any address."""
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
    """Each scale that an encoder makes, with a block of all kinds of levels."""
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
def test_nothing_is_added_of_what_is_refused(kernel: KernelStatus, name: str) -> None:
    elements = 3 * CHUNK_ELEMENTS
    data = bytearray(REFERENCES[name].encode(np.ones(elements, np.float32)))
    at = REFERENCES[name].size(2 * CHUNK_ELEMENTS)
    data[at : at + 4] = b"\xff\xff\xff\xff"
    for codec in (REFERENCES[name], CompiledCodec(REFERENCES[name], lambda: kernel)):
        out = np.full(elements, 0.5, np.float32)
        with pytest.raises(PeerFault):
            codec.add(data, 2, out)
        assert (out == 0.5).all()


def test_without_loops_numpy_does_the_work() -> None:
    assert load(None, LOOPED) == KernelStatus(
        None, "numpy: the compiled loops are missing; install again with a C compiler to have them"
    )
    values = made(CHUNK_ELEMENTS + 5, 1, "normal")
    for name in NAMES:
        codec = CompiledCodec(REFERENCES[name], lambda: load(None, LOOPED))
        data = codec.encode(values, 3)
        assert data == REFERENCES[name].encode(values, 3)
        codec.check(data, values.size)
        assert filled(lambda out, codec=codec, data=data: codec.mean([(1, data)], out), values.size)


class _OtherInt8(Int8):
    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        super()._encode(values, first, out)
        out[-1] ^= 1


def test_loops_that_would_make_other_bytes_are_not_used(
    tmp_path: Path, kernel: KernelStatus
) -> None:
    assert kernel.loops is not None
    library = Path(kernel.loops.path)
    assert (
        load(library, [_OtherInt8()]).reason
        == "numpy: the compiled int8 makes other bytes on this machine"
    )
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not an object")
    assert "cannot be loaded" in load(broken, LOOPED).reason
    stale = tmp_path / "stale.c"
    stale.write_text("int kernel_revision(void) { return 0; }")
    subprocess.run(
        [
            shutil.which("cc") or "gcc",
            "-shared",
            "-fPIC",
            "-o",
            str(tmp_path / "stale.so"),
            str(stale),
        ],
        check=True,
    )
    assert (
        f"revision 0, but this version needs {REVISION}"
        in load(tmp_path / "stale.so", LOOPED).reason
    )


def test_the_switch_and_what_is_said() -> None:
    program = f"import sys; sys.path[:] = {sys.path!r}; from protocol.codec import implementation; print(implementation())"
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HYPERGPU_CODECS": "numpy"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "numpy: chosen by HYPERGPU_CODECS"
    assert implementation().startswith(("compiled", "numpy: "))
