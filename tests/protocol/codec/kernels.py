"""Values and freshly built kernels for the tests of the compiled loops."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

import protocol.codec
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec, entries
from protocol.codec.compiled import CompiledCodec
from protocol.codec.kernel import KernelStatus, load
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
    """Return finite values of many kinds. `bits` has every finite pattern."""
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
    """Build the loops twice.

    Once as an installation builds them, once nearly unoptimized and without vector instructions.
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
    """Return the result or the refusal in its words. A warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return work()
        except (PeerFault, ValueError) as refused:
            return type(refused), str(refused)


def both(kernel: KernelStatus, name: str, work: Callable[[Codec], object]) -> object:
    """Assert that loops and numpy do the same, and return the result."""
    compiled, reference = CompiledCodec(REFERENCES[name], lambda: kernel), REFERENCES[name]
    done = outcome(lambda: work(compiled))
    assert done == outcome(lambda: work(reference))
    return done


def filled(work: Callable[[Vector], None], elements: int) -> bytes:
    out = np.full(elements, 0.75, np.float32)
    work(out)
    return out.tobytes()
