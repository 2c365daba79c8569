"""Which contributors, chunks and samples an audit draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.audit.draw import audit_seed, draw_chunks, draw_contributors
from protocol.audit.samples import GROUP_SAMPLES, GROUPS, DrawnStretch, audit_groups, named_total
from protocol.digest import digest
from protocol.identity import Signer
from protocol.ports.trainer import Lane
from protocol.run.data_order import MAX_POSITION, Indices, lane_positions, sample_indices

SEED = 5
SIGNER = Signer(bytes(32))


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(1))


def lane(index: int, base: int = 0, stride: int = 16, limit: int = 0) -> Lane:
    return Lane(base=base, index=index, stride=stride, limit=limit)


def stretch(index: int, first: int, count: int, **more: int) -> DrawnStretch:
    return DrawnStretch(lane=lane(index, **more), first=first, count=count)


def samples_of(positions: Indices, trained: int) -> set[int]:
    return set(sample_indices(SEED, trained, positions.reshape(-1)).tolist())


def drawn_by(stretches: list[DrawnStretch], trained: int) -> set[int]:
    positions = [lane_positions(each.lane, each.first, each.count) for each in stretches]
    return samples_of(np.concatenate(positions), trained)


stretches = st.lists(
    st.builds(
        stretch,
        st.integers(0, 15),
        st.integers(0, 500),
        st.integers(1, 800),
        base=st.integers(0, 10_000),
        limit=st.sampled_from([0, 0, 50, 2000]),
    ),
    min_size=1,
    max_size=4,
)


@given(stretches, stretches, st.integers(100, 100_000))
def test_audit_groups_are_of_the_offer_and_of_nobody(
    own: list[DrawnStretch], others: list[DrawnStretch], trained: int
) -> None:
    groups = audit_groups(own, others, seed=SEED, trained=trained, rng=rng())
    mine = drawn_by(own, trained)
    if groups is None:
        assert len(mine) < 16 or len(mine) * 2 > trained
        return
    assert groups.own.shape == groups.others.shape
    assert groups.own.shape[0] == GROUPS
    assert 8 <= groups.own.shape[1] <= GROUP_SAMPLES
    assert samples_of(groups.own, trained) <= mine
    assert not samples_of(groups.others, trained) & mine
    theirs = drawn_by(others, trained)
    if (trained - len(mine | theirs)) * 4 >= trained:
        assert not samples_of(groups.others, trained) & theirs
    for group in (*groups.own, *groups.others):
        assert len(samples_of(group, trained)) == len(group)


def test_audit_groups_of_a_long_offer_and_a_large_data_set() -> None:
    own = [stretch(3, 1 << 20, 1 << 30), stretch(3, 0, 64)]
    groups = audit_groups(own, [], seed=SEED, trained=1 << 40, rng=rng())
    assert groups is not None
    assert groups.own.shape == (GROUPS, GROUP_SAMPLES)
    assert (groups.own % 16 == 3).all()
    assert not samples_of(groups.own, 1 << 40) & samples_of(groups.others, 1 << 40)


def test_audit_groups_refuse_stretches_that_leave_63_bits() -> None:
    for count in (64, 1 << 32):
        own = [stretch(3, MAX_POSITION // 16 - 8, count)]
        with pytest.raises(ValueError, match="63 bits"):
            audit_groups(own, [], seed=SEED, trained=10_000, rng=rng())


@pytest.mark.parametrize("count", [0, 3, 15])
def test_audit_groups_need_enough_named_samples(count: int) -> None:
    own = [stretch(0, 0, count)] if count else []
    assert audit_groups(own, [], seed=SEED, trained=10_000, rng=rng()) is None


def test_audit_groups_of_most_of_the_data_set_judge_nothing() -> None:
    own = [DrawnStretch(lane=Lane(base=0, index=0, stride=1), first=0, count=600)]
    assert audit_groups(own, [], seed=SEED, trained=1000, rng=rng()) is None
    assert audit_groups(own, [], seed=SEED, trained=1400, rng=rng()) is not None


def test_named_total_counts_what_two_stretches_name_once() -> None:
    assert named_total([stretch(1, 0, 100), stretch(1, 50, 100)]) == 150
    assert named_total([stretch(1, 0, 100), stretch(1, 10, 20)]) == 100
    assert named_total([stretch(1, 0, 100), stretch(2, 0, 100)]) == 200
    assert named_total([]) == 0


def test_draw_contributors_takes_newcomers_first_mostly() -> None:
    peers = [f"peer-{i}" for i in range(20)]
    firsts = []
    for number in range(200):
        seed = audit_seed(SIGNER, digest(number.to_bytes(4, "big")))
        order = draw_contributors(seed, peers, ["peer-3", "peer-7"])
        assert sorted(order) == sorted(peers)
        assert order == draw_contributors(seed, peers[::-1], ["peer-7", "peer-3"])
        firsts.append(order[0])
    newcomers = sum(first in ("peer-3", "peer-7") for first in firsts)
    assert 130 < newcomers < 180
    assert len(set(firsts)) > 15, "one of four draws is among all"


def test_audit_seed_is_another_one_for_each_voter_and_certificate() -> None:
    other = Signer(bytes([1]) * 32)
    seeds = {
        audit_seed(signer, digest(name)) for signer in (SIGNER, other) for name in (b"a", b"b")
    }
    assert len(seeds) == 4


@given(st.integers(1, 5000), st.binary(min_size=32, max_size=32))
def test_draw_chunks_takes_a_quarter_in_runs(chunks: int, seed: bytes) -> None:
    runs = draw_chunks(seed, "peer", chunks)
    total = sum(stop - first for first, stop in runs)
    assert total >= min(chunks, 505)
    assert total <= max(chunks / 4 + 16, 520)
    flat = [border for run in runs for border in run]
    assert flat == sorted(flat)
    assert all(0 <= first < stop <= chunks for first, stop in runs)
