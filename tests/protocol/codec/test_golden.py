"""Every codec makes the bytes that it made when it was released, on every machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec
from protocol.digest import digest
from tests.protocol.codec.codecs import REFERENCES, USED

GOLDEN = {
    "float32": "b6a6a4e8e332e067",
    "bfloat16": "9079fcffe902a1be",
    "float16": "00e8d9ded9b0a4c3",
    "int8": "4f6b7a21acb64229",
    "int4": "ed7d12d9060f0bc3",
    "topk": "16c0065f4cfc3fcd",
    "topk_result": "8ea4be144d0998a3",
}
"""BLAKE3 digests of the encodings of `golden_values`, 16 hex digits each."""


def golden_values() -> Vector:
    """Return two chunks and a quarter, one of them with magnitudes from 1e-27 to 1e-9."""
    source = np.random.Generator(np.random.PCG64(5))
    values = (source.integers(-(1 << 20), 1 << 20, 2 * CHUNK_ELEMENTS + 1001) / 2.0**30).astype(
        np.float32
    )
    values[:CHUNK_ELEMENTS] *= values[:CHUNK_ELEMENTS] * values[:CHUNK_ELEMENTS]
    return values


def golden_digests(codecs: dict[str, Codec] = USED) -> dict[str, str]:
    values = golden_values()
    return {name: digest(codec.encode(values)).hex()[:16] for name, codec in codecs.items()}


def test_golden() -> None:
    """Compare with the bytes that every machine must make.

    A substitute reducer makes them again.
    """
    assert golden_digests() == GOLDEN
    assert golden_digests(REFERENCES) == {name: GOLDEN[name] for name in REFERENCES}


BEYOND_2008 = "F16C FMA3 AVX AVX2 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="the names of vector instructions are those of x86-64",
)
def test_golden_on_an_older_processor() -> None:
    """Encode without modern vector instructions.

    numpy chooses its loops by the processor's instructions. The bytes must stay the same.
    """
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from tests.protocol.codec.test_golden import golden_digests; print(golden_digests())"
    )
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": BEYOND_2008,
        "HYPERGPU_CODECS": "numpy",
    }
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == str(GOLDEN)
