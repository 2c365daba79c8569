"""Top-k sends the greatest elements with the best two magnitudes and refuses bad indices."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec, codec_named
from protocol.errors import PeerFault

TOPK = codec_named("topk")
BOTH = pytest.mark.parametrize(
    ("codec", "bucket"), [(TOPK, 64), (TOPK.result, 16)], ids=["topk", "result"]
)
ELEMENTS = st.integers(1, 2 * CHUNK_ELEMENTS + 100)


def decoded(data: bytes, size: int, codec: Codec = TOPK) -> Vector:
    out = np.full(size, np.nan, np.float32)
    codec.decode(data, out)
    return out


def made(elements: int, seed: int, kind: str) -> Vector:
    source = np.random.default_rng(seed)
    match kind:
        case "normal":
            return source.standard_normal(elements, np.float32)
        # Few levels make ties everywhere.
        case "few levels":
            return source.integers(-3, 4, elements).astype(np.float32)
        case "sparse":
            return (source.standard_normal(elements) * (source.random(elements) < 0.002)).astype(
                np.float32
            )
        case "steep":
            return (
                source.choice([-1.0, 1.0], elements) / np.sqrt(1.0 + source.permutation(elements))
            ).astype(np.float32)
    return np.zeros(elements, np.float32)


KINDS = st.sampled_from(["normal", "few levels", "sparse", "steep", "zero"])


@BOTH
@given(elements=ELEMENTS, seed=st.integers(0, 1 << 20), kind=KINDS)
def test_the_greatest_elements_travel_and_the_first_of_equal_ones(
    codec: Codec, bucket: int, elements: int, seed: int, kind: str
) -> None:
    values = made(elements, seed, kind)
    out = decoded(codec.encode(values), elements, codec)
    for start in range(0, elements, CHUNK_ELEMENTS):
        chunk, got = values[start : start + CHUNK_ELEMENTS], out[start : start + CHUNK_ELEMENTS]
        kept = -(-chunk.size // bucket)
        wanted = np.argsort(-np.abs(chunk), kind="stable")[:kept]
        sent = np.flatnonzero(got)
        assert set(sent) <= set(wanted)
        assert set(wanted[np.abs(chunk[wanted]) > 0.5 * np.abs(chunk[wanted]).max()]) <= set(sent)
        # A zero that travels is as great as the lesser ones are.
        assert (np.sign(got[sent]) * np.sign(chunk[sent]) >= 0).all()
        assert len(set(np.abs(got[sent]).tolist())) <= 2


@BOTH
@given(elements=ELEMENTS, seed=st.integers(0, 1 << 20), kind=KINDS)
def test_the_loss_is_bounded(
    codec: Codec, bucket: int, elements: int, seed: int, kind: str
) -> None:
    values = made(elements, seed, kind).astype(np.float64)
    lost = values - decoded(codec.encode(values.astype(np.float32)), elements, codec)
    for start in range(0, elements, CHUNK_ELEMENTS):
        chunk = values[start : start + CHUNK_ELEMENTS]
        share = -(-chunk.size // bucket) / chunk.size
        assert (
            np.square(lost[start : start + CHUNK_ELEMENTS]).sum()
            <= (1 - share / 2) * np.square(chunk).sum() + 1e-30
        )


@given(st.lists(st.floats(2.0**-10, 1024.0, width=32), min_size=2, max_size=64))
def test_no_two_magnitudes_are_better(magnitudes: list[float]) -> None:
    values = np.zeros(64 * len(magnitudes), np.float32)
    values[::64] = magnitudes
    lost = float(
        np.square(values - decoded(TOPK.encode(values), values.size), dtype=np.float64).sum()
    )
    ordered = np.sort(np.array(magnitudes, np.float64))
    best = min(
        sum(
            float(np.square(part - part.mean()).sum())
            for part in np.split(ordered, [i])
            if part.size
        )
        for i in range(ordered.size)
    )
    # The magnitudes are rounded to bfloat16.
    assert lost <= best + 2.0**-15 * float(np.square(ordered).sum())


def test_golden_bytes() -> None:
    """Encode 128 elements: two of them, 3 and 100, travel in 4 + 3 bytes."""
    values = np.zeros(128, np.float32)
    values[3], values[100] = -2.0, 5.0
    # Buckets 0 and 1 with one element each set bits 0 and 2 of 4. The places are 3 and 36, the
    # signs 1 and 0, the magnitudes 0 and 1.
    bits = [1, 0, 1, 0, *[1, 1, 0, 0, 0, 0], *[0, 0, 1, 0, 0, 1], 1, 0, 0, 1]
    body = sum(bit << i for i, bit in enumerate(bits)).to_bytes(3, "little")
    data = struct.pack("<HH", 0x4000, 0x40A0) + body
    assert TOPK.encode(values) == data
    assert decoded(data, 128).tobytes() == values.tobytes()


def _with(bits: list[int], magnitudes: tuple[int, int] = (0x3F80, 0x4000)) -> bytes:
    size = -(-len(bits) // 8)
    return struct.pack("<HH", *magnitudes) + sum(bit << i for i, bit in enumerate(bits)).to_bytes(
        size, "little"
    )


def _chunk(where: list[int], places: list[int], behind: int = 0) -> bytes:
    """Return a chunk of 128 elements.

    It has four bits of buckets, two places of six bits, two positive signs, two lesser magnitudes
    and the padding bits `behind`.
    """
    inside = [place >> i & 1 for place in places for i in range(6)]
    return _with([*where, *inside, 0, 0, 0, 0, behind, 0, 0, 0])


@pytest.mark.parametrize(
    ("data", "elements", "why"),
    [
        (_chunk([1, 1, 0, 0], [9, 9]), 128, "not in order"),  # One element twice.
        (_chunk([1, 1, 0, 0], [9, 8]), 128, "not in order"),
        (_chunk([1, 1, 1, 0], [8, 9]), 128, "wrong number"),
        (_chunk([1, 0, 0, 0], [8, 9]), 128, "wrong number"),
        (_chunk([0, 0, 0, 0], [8, 9]), 128, "wrong number"),
        (_chunk([1, 0, 0, 1], [8, 9]), 128, "out of range"),  # A bucket behind the last.
        (_chunk([1, 0, 1, 0], [8, 37]), 100, "out of range"),  # The last bucket of a short chunk.
        (_chunk([1, 1, 0, 0], [8, 9], behind=1), 128, "wrong number"),
        (_with([1, 0, 1, 0] + [0] * 20, (0x7F80, 0x7F80)), 128, "not finite"),
        (_with([1, 0, 1, 0] + [0] * 20, (0x3F80, 0x7FC0)), 128, "not finite"),
        (_with([1, 0, 1, 0] + [0] * 20, (0xBF80, 0x3F80)), 128, "not finite"),
        (_with([1, 0, 1, 0] + [0] * 20, (0x4000, 0x3F80)), 128, "not in order"),
    ],
)
def test_impossible_encodings_are_refused(data: bytes, elements: int, why: str) -> None:
    with pytest.raises(PeerFault, match=why) as refused:
        decoded(data, elements)
    assert refused.value.reason == "malformed"


def test_the_correct_encoding_is_accepted() -> None:
    assert np.flatnonzero(decoded(_chunk([1, 1, 0, 0], [8, 9]), 128)).tolist() == [8, 9]
    assert np.flatnonzero(decoded(_chunk([0, 1, 1, 0], [8, 35]), 100)).tolist() == [72, 99]
