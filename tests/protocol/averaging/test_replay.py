"""A member that replays encoded means reaches the certified states, and refuses wrong bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.averaging.encoded_mean import EncodedMean, MeanPieces, pieces_of
from protocol.averaging.group_layout import GroupLayout, layout_of
from protocol.averaging.outer_step import LEAF_ELEMENTS, outer_step, state_leaves
from protocol.averaging.replay import step_state
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, element_range, share_out
from protocol.certificates.result_keepers import KEEPERS, keeper_voted, keepers
from protocol.codec import Codec, chunk_bytes, codec_named
from protocol.digest import leaves_of, merkle_root
from protocol.messages.round import Inclusion, Vote
from protocol.planning.plan import OpenPlan
from protocol.run.manifest import Outer

# Two leaves of the state's digest; the last chunk is short.
PARAMETERS = LEAF_ELEMENTS + 2 * CHUNK_ELEMENTS + 77
CHUNKS = -(-PARAMETERS // CHUNK_ELEMENTS)
VECTOR: Vector = np.random.default_rng(3).standard_normal(PARAMETERS).astype(np.float32)
CODECS = ("float32", "int8", "int4")


def layout(shares: list[float]) -> GroupLayout:
    return layout_of((tuple(range(len(shares))),), share_out(CHUNKS, shares))


def sliced(codec: Codec, of: GroupLayout) -> list[tuple[int, bytes]]:
    """(first element, encoding) of each slice, as the members that finish them send them."""
    borders = [element_range(first, last, PARAMETERS) for first, last in of.slices if first < last]
    return [(start, codec.encode(VECTOR[start:stop])) for start, stop in borders]


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(shares=st.lists(st.floats(0.1, 5.0), min_size=1, max_size=6))
def test_pieces_of_any_layout_lead_to_the_root_over_the_slices(
    name: str, shares: list[float]
) -> None:
    codec, of = codec_named(name).result, layout(shares)
    parts = sliced(codec, of)
    mean, pieces = EncodedMean(codec, parts), MeanPieces(of, codec, PARAMETERS)
    assert mean.read(0, mean.size_bytes) == codec.encode(VECTOR), "one order of bytes"
    by_start = dict(parts)
    roots = [
        merkle_root(
            leaves_of(by_start[element_range(*chunks, PARAMETERS)[0]], chunk_bytes(codec))
            if chunks[0] < chunks[1]
            else []
        )
        for chunks in of.slices
    ]
    digests = pieces_of(mean, pieces)
    assert pieces.root(digests) == merkle_root(roots)
    assert sum(size for _, size in pieces.sizes) == mean.size_bytes


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_one_wrong_byte_of_a_result_is_refused(name: str, data: st.DataObject) -> None:
    codec, of = codec_named(name).result, layout([1.0, 2.0, 1.0])
    whole, pieces = codec.encode(VECTOR), MeanPieces(of, codec, PARAMETERS)
    root = pieces.root(pieces_of(EncodedMean(codec, [(0, whole)]), pieces))
    wrong = bytearray(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    wrong[at] ^= data.draw(st.integers(1, 255))
    digests = pieces_of(EncodedMean(codec, [(0, bytes(wrong))]), pieces)
    assert pieces.root(digests) != root


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("in_place", [True, False])
def test_replayed_state_is_that_of_one_step_over_the_whole_vector(
    name: str, in_place: bool
) -> None:
    codec, outer = codec_named(name).result, Outer(learning_rate=0.7, momentum=0.9)
    mean = EncodedMean(codec, sliced(codec, layout([1.0, 2.0, 1.0])))
    averaged = np.empty_like(VECTOR)
    codec.decode(codec.encode(VECTOR), averaged)
    before = (VECTOR[::-1].copy(), np.full_like(VECTOR, 0.25))
    expected = (np.empty_like(VECTOR), np.empty_like(VECTOR))
    outer_step(*before, averaged, outer, *expected, rounds=2.0)
    after = before if in_place else (np.empty_like(VECTOR), np.empty_like(VECTOR))
    leaves = step_state(before, mean.decode, after, step=outer_step, outer=outer, rounds=2.0)
    for part, wanted in zip(after, expected, strict=True):
        np.testing.assert_array_equal(part, wanted)
    assert leaves == state_leaves(*expected)


def vote(number: int) -> Vote:
    name = bytes(32)
    return Vote(
        parents=(name,), number=number, view=0, plan=name, inclusion=name, result=name, state=name
    )


def test_keepers_are_three_present_members_whom_the_outcome_draws_evenly() -> None:
    members = [f"member-{i}" for i in range(8)]
    plan = cast(OpenPlan, SimpleNamespace(members=members))
    here = cast(Inclusion, SimpleNamespace(present=(0, 2, 3, 5, 6)))
    kept = dict.fromkeys(members, 0)
    for number in range(1, 501):
        chosen = keepers(vote(number), plan, here)
        assert chosen == keepers(vote(number), plan, here), "every member draws the same"
        assert len(set(chosen)) == KEEPERS
        for peer in chosen:
            kept[peer] += 1
        others = [peer for peer in members if peer not in chosen]
        assert not keeper_voted(others, vote(number), plan, here)
        assert keeper_voted([*others, chosen[-1]], vote(number), plan, here)
    # 300 each on average, with a deviation of 11.
    for i, peer in enumerate(members):
        assert 240 < kept[peer] < 360 if i in here.present else kept[peer] == 0


def test_fewer_members_than_keepers_all_keep() -> None:
    plan = cast(OpenPlan, SimpleNamespace(members=["a", "b"]))
    here = cast(Inclusion, SimpleNamespace(present=(0, 1)))
    assert set(keepers(vote(1), plan, here)) == {"a", "b"}
