"""The registry: names, sizes, error bounds, and a codec that is added at run time."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import (
    CodecEntry,
    chunk_bytes,
    codec_named,
    entries,
    entry_named,
    implementation,
)
from protocol.codec.kernel import installed
from protocol.codec.registry import registered
from protocol.errors import UserError
from simulator.bench.codecs import bench_codecs
from tests.protocol.codec.codecs import FLOAT24, REGISTERED, Float24, decoded


@pytest.mark.parametrize(
    ("name", "chunk", "rest"),
    [
        ("float32", 16384, 20),
        ("bfloat16", 8192, 10),
        ("float16", 8192, 10),
        ("int8", 4128, 7),
        ("int4", 2176, 5),
        ("topk", 84, 6),
    ],
)
def test_sizes(name: str, chunk: int, rest: int) -> None:
    """Compare the bytes of a whole chunk and of five elements."""
    codec = codec_named(name)
    assert (codec.size(0), chunk_bytes(codec), codec.size(5)) == (0, chunk, rest)
    assert codec.size(3 * CHUNK_ELEMENTS + 5) == 3 * chunk + rest
    assert codec.encode(np.empty(0, np.float32)) == b""
    codec.decode(b"", np.empty(0, np.float32))


def test_the_mean_of_a_sparse_codec_travels_less_sparsely() -> None:
    assert {entry.name for entry in entries() if not entry.is_dense} == {"topk"}
    for name, codec in REGISTERED.items():
        assert (codec.result is codec) == entry_named(name).is_dense
    assert chunk_bytes(REGISTERED["topk"].result) == 260


def test_names_are_unique_and_an_unknown_one_is_a_user_error() -> None:
    assert [codec.name for codec in REGISTERED.values()] == list(REGISTERED)
    assert codec_named("bfloat16") is REGISTERED["bfloat16"]
    with pytest.raises(UserError, match=r"'no_such_codec'; known: float32, bfloat16") as unknown:
        codec_named("no_such_codec")
    assert unknown.value.exit_code == 2
    with pytest.raises(ValueError, match="registered already"), registered(entries()[0]):
        pass


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_no_error_exceeds_the_entrys_bound(entry: CodecEntry) -> None:
    values = np.random.default_rng(2).standard_normal(4 * CHUNK_ELEMENTS, np.float32)
    lost = np.abs(decoded(entry.reference, entry.reference.encode(values), values.size) - values)
    peaks = np.abs(values).reshape(4, -1).max(axis=1)
    assert (lost.reshape(4, -1).max(axis=1) <= entry.max_error * peaks).all()
    assert entry.description
    assert entry.bits_per_element == 8 * chunk_bytes(entry.reference) / CHUNK_ELEMENTS


def test_a_codec_without_loops_is_added_at_run_time() -> None:
    """The codec is found by name, and the benchmark measures it.

    The compiled loops of the other codecs stay in use.
    """
    before = implementation()
    with registered(FLOAT24) as codec:
        assert codec is codec_named("float24")
        assert entries()[-1] is FLOAT24
        assert implementation() == before
        values = np.linspace(-1, 1, CHUNK_ELEMENTS + 7, dtype=np.float32)
        assert np.allclose(decoded(codec, codec.encode(values), values.size), values, atol=2**-15)
        measured = [record for record in bench_codecs(5000, 1) if record.codec == "float24"]
        assert [record.implementation for record in measured] == ["numpy"]
    with pytest.raises(UserError):
        codec_named("float24")


def test_a_codec_that_claims_loops_it_does_not_have_falls_back_to_numpy() -> None:
    status = installed([Float24()])
    assert status.loops is None
    assert status.reason.startswith("numpy: ")
    with registered(msgspec.structs.replace(FLOAT24, has_loops=True)) as codec:
        values = np.ones(5, np.float32)
        assert codec.encode(values) == Float24().encode(values)
        assert codec.result is codec
