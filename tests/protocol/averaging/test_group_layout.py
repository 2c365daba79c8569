"""Several groups: each sums every chunk once, one member finishes it, and all members get it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.averaging.group_layout import GroupLayout, even_groups, layout_of, receivers
from protocol.averaging.reduction import mean_of_groups, weighted_mean
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, share_out
from protocol.codec import codec_named
from protocol.errors import PeerFault
from protocol.messages.round import Inclusion

HASH = b"h" * 32


@st.composite
def layouts(draw: st.DrawFn) -> GroupLayout:
    """Draw members in groups of any sizes, in any order."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    members = draw(st.permutations(range(sum(sizes))))
    groups, start = [], 0
    for size in sizes:
        groups.append(tuple(members[start : start + size]))
        start += size
    chunks = draw(st.integers(0, 40))
    return layout_of(tuple(groups), share_out(chunks, [1.0] * min(sizes)))


@given(layouts())
def test_each_group_sums_the_whole_vector_and_all_groups_finish_it_together(
    layout: GroupLayout,
) -> None:
    for group in layout.groups:
        summed = [chunk for member in group for chunk in range(*layout.parts[member])]
        assert summed == sorted(set(summed))
    whole = [chunk for member in layout.groups[0] for chunk in range(*layout.parts[member])]
    finished = sorted(
        chunk for member in range(len(layout.group_of)) for chunk in range(*layout.slices[member])
    )
    assert finished == whole == list(range(len(whole)))
    for member, (start, stop) in enumerate(layout.slices):
        assert start == stop or (
            layout.parts[member][0] <= start and stop <= layout.parts[member][1]
        )


def test_one_group_has_parts_that_equal_slices() -> None:
    layout = layout_of(((0, 1, 2, 3),), (0, 2, 2, 7, 9))
    assert layout.parts == layout.slices == ((0, 2), (2, 2), (2, 7), (7, 9))
    assert layout.counterparts == ((0,), (1,), (2,), (3,))


@given(count=st.integers(1, 64), most=st.integers(2, 64))
def test_even_groups_differ_by_one_member(count: int, most: int) -> None:
    groups = even_groups(count, most)
    assert [i for group in groups for i in group] == list(range(count))
    assert len(groups) == -(-count // most)
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


@given(layouts(), st.randoms(use_true_random=False))
def test_every_result_reaches_all_present_members_over_the_living_ones(
    layout: GroupLayout, rng: Random
) -> None:
    """Members were lost before the inclusion, and one more is lost while results travel."""
    count = len(layout.group_of)
    present = sorted(rng.sample(range(count), rng.randint(1, count)))
    owners = tuple(
        i
        if i in present
        else rng.choice([j for j in layout.group_members(i) if j in present] or present)
        for i in range(count)
    )
    inclusion = Inclusion(
        plan=HASH, number=2, contributors=(), present=tuple(present), owners=owners, reason=""
    )
    for index in range(count):
        if not layout.finishes(index):
            continue
        made_by = owners[index]
        gone = {rng.choice(present)} - {made_by}
        has, news = {made_by}, [made_by]
        while news:
            holder = news.pop()
            for member in receivers(layout, inclusion, index, holder, gone):
                assert member != holder
                if member not in has and member not in gone:
                    has.add(member)
                    news.append(member)
        assert has == set(present) - gone


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    codec=st.sampled_from(("float32", "bfloat16", "int8")),
    seed=st.integers(0, 1000),
)
def test_the_mean_of_groups_is_the_exact_weighted_mean_within_rounding(
    sizes: list[int], codec: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    coder = codec_named(codec)
    sums, exact, total = [], np.zeros(CHUNK_ELEMENTS), 0
    for size in sizes:
        parts = []
        for _ in range(size):
            weight, values = (
                int(rng.integers(1, 1_000_000)),
                rng.standard_normal(CHUNK_ELEMENTS).astype(np.float32),
            )
            parts.append((weight, coder.encode(values)))
            decoded = np.empty_like(values)
            coder.decode(parts[-1][1], decoded)
            exact += weight * decoded.astype(np.float64)
            total += weight
        mean = np.empty(CHUNK_ELEMENTS, np.float32)
        sums.append((weighted_mean(parts, coder, mean), mean.tobytes()))
    out = np.empty(CHUNK_ELEMENTS, np.float32)
    assert mean_of_groups(sums, out) == total
    assert np.abs(out - exact / total).max() <= 2e-6 * np.abs(exact / total).max()


def test_a_groups_mean_that_is_not_finite_is_refused() -> None:
    bad = np.array([np.nan], np.float32).tobytes()
    with pytest.raises(PeerFault, match="not finite"):
        mean_of_groups([(1, bad)], np.empty(1, np.float32))
