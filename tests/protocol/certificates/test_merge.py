"""Merging: a certificate with two parents makes one branch of two, and no other does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.merge import merge_parents, merge_round, merge_vectors
from protocol.certificates.next_tip import extend, merge
from protocol.certificates.tip import Tip, genesis, prefer
from protocol.errors import PeerFault
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, chain, named, people

START = genesis(RUN)
HASHES = st.binary(min_size=32, max_size=32)
WEIGHTS = st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40))


def opened(raw: bytes) -> OpenCertificate:
    return open_certificate(raw, RUN, MANIFEST, CHUNKS)


def refused(raw: bytes, reason: str = "bad_certificate") -> str:
    with pytest.raises(PeerFault) as fault:
        opened(raw)
    assert fault.value.reason == reason
    return str(fault.value)


def _halves(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.PCG64(seed))
    one, two = (
        (random.integers(-(1 << 20), 1 << 20, size) / 2.0**18).astype(np.float32) for _ in range(2)
    )
    return one, two


@given(HASHES, HASHES)
def test_a_merge_is_named_by_both_parents_in_either_order(a: bytes, b: bytes) -> None:
    assert merge_parents(a, b) == merge_parents(b, a) == tuple(sorted((a, b)))
    assert merge_round((a,)) == a
    assert merge_round(merge_parents(a, b)) not in (a, b)
    if a != b:
        assert merge_round((a, b)) != merge_round((b, a))


@given(seed=st.integers(0, 999), size=st.integers(0, 300), weights=WEIGHTS)
def test_a_merged_state_is_the_weighted_mean(
    seed: int, size: int, weights: tuple[int, int]
) -> None:
    one, two = _halves(seed, size)
    out = np.full(size, np.nan, np.float32)
    merge_vectors(one, two, weights, out)
    first, second = weights if any(weights) else (1, 1)
    exact = (one.astype(np.float64) * first + two.astype(np.float64) * second) / (first + second)
    magnitude = np.maximum(np.abs(one), np.abs(two))
    assert (np.abs(out - exact) <= 4 * np.finfo(np.float32).eps * magnitude).all()


@given(seed=st.integers(0, 999), size=st.integers(1, 300), weights=WEIGHTS)
def test_a_merge_into_either_input_makes_the_same_bytes(
    seed: int, size: int, weights: tuple[int, int]
) -> None:
    """A node merges into one of its buffers; its anchor may be the first or the second parent."""
    one, two = _halves(seed, size)
    apart = np.empty(size, np.float32)
    merge_vectors(one, two, weights, apart)
    for i in (0, 1):
        pair = [one.copy(), two.copy()]
        merge_vectors(pair[0], pair[1], weights, pair[i])
        assert pair[i].tobytes() == apart.tobytes()


def fork() -> tuple[Tip, Tip]:
    """Return two tips with one parent, in the order of their hashes."""
    one, two = (
        Made(people(4), START).with_inclusion(reason=reason).next_tip()
        for reason in ("one", "another")
    )
    return (one, two) if one.hash < two.hash else (two, one)


def merging(first: Tip, second: Tip, **changes: object) -> bytes:
    """Return a certificate that merges two tips."""
    parents = merge_parents(first.hash, second.hash)
    round_tip = replace(
        prefer(first, second),
        hash=merge_round(parents),
        number=max(first.number, second.number),
        last_seq=first.last_seq,
    )
    made = Made(people(4), round_tip, samples=0, seq=0).with_inclusion(contributors=())
    made.vote = replace(made.vote, **{"parents": parents, **changes})
    return made.raw()


def test_a_merge_makes_one_tip_of_two() -> None:
    first, second = fork()
    tip = merge(first, second, (40, 40), opened(merging(first, second)))
    assert (tip.number, tip.samples) == (2, 80)
    assert tip.last_seq == first.last_seq
    assert tip.members == tuple(person.peer for person in people(4))


def test_a_merge_takes_the_length_of_rounds_of_the_preferred_branch() -> None:
    first, second = fork()
    first = replace(first, round_s=8.0, samples=first.samples + 1)
    second = replace(second, round_s=4.0)
    tip = merge(first, second, (41, 40), opened(merging(first, second)))
    assert tip.round_s == 8.0
    other = opened(merging(replace(first, samples=0), second))
    with pytest.raises(PeerFault, match="ends a round of 4 s where its parent left 8 s"):
        merge(first, second, (41, 40), other)


def test_a_certificate_that_does_not_merge_these_tips_is_refused() -> None:
    first, second = fork()
    assert "two parents in order" in refused(
        merging(first, second, parents=(second.hash, first.hash))
    )
    assert "two parents in order" in refused(
        merging(first, first, parents=(first.hash, first.hash))
    )
    assert "another round than the plan" in refused(
        merging(first, second, parents=merge_parents(first.hash, named("third")))
    )
    certificate = opened(merging(first, second))
    for tips in ((second, first), (first, chain(2)[-1])):
        with pytest.raises(PeerFault, match="does not merge"):
            merge(*tips, (40, 40), certificate)
    with pytest.raises(PeerFault, match="does not follow"):
        extend(first, certificate)


def test_a_merge_with_contributors_is_refused() -> None:
    first, second = fork()
    round_tip = replace(first, hash=merge_round((first.hash, second.hash)))
    made = Made(people(4), round_tip, seq=5)
    made.vote = replace(made.vote, parents=(first.hash, second.hash))
    assert "without contributors" in refused(made.raw(), "bad_plan")
