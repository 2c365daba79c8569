"""Merkle trees: a range proof shows what it should and nothing else."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol.digest import (
    EMPTY_ROOT,
    digest,
    leaf_digest,
    leaves_of,
    levels_of,
    merkle_root,
    range_proof,
    root_from_range,
    root_of,
)

DATA = st.binary(min_size=1, max_size=400)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[list[bytes], int, int]:
    """Draw different leaves, and a range of them."""
    total = draw(st.integers(1, 70))
    start = draw(st.integers(0, total - 1))
    stop = draw(st.integers(start + 1, total))
    return [leaf_digest(bytes([i])) for i in range(total)], start, stop


def _flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


@given(ranges())
def test_every_range_has_a_proof_and_a_short_one(case: tuple[list[bytes], int, int]) -> None:
    leaves, start, stop = case
    proof = range_proof(levels_of(leaves), start, stop)
    assert root_from_range(leaves[start:stop], start, len(leaves), proof) == merkle_root(leaves)
    assert len(proof) <= 2 * (len(leaves) - 1).bit_length()


@given(DATA, st.integers(1, 40), st.data())
def test_a_slice_of_bytes_leads_to_the_digest_of_the_whole(
    data: bytes, chunk: int, draw: st.DataObject
) -> None:
    leaves = leaves_of(data, chunk)
    start = draw.draw(st.integers(0, len(leaves) - 1))
    stop = draw.draw(st.integers(start + 1, len(leaves)))
    proof = range_proof(levels_of(leaves), start, stop)
    part = data[start * chunk : stop * chunk]
    root = merkle_root(leaves)
    assert root_from_range(leaves_of(part, chunk), start, len(leaves), proof) == root
    assert (
        root_from_range(leaves_of(memoryview(bytearray(part)), chunk), start, len(leaves), proof)
        == root
    )
    changed = _flipped(part, draw.draw(st.integers(0, 8 * len(part) - 1)))
    assert root_from_range(leaves_of(changed, chunk), start, len(leaves), proof) != root


@given(ranges(), st.integers(0, 255), st.data())
def test_a_changed_proof_fails(
    case: tuple[list[bytes], int, int], bit: int, draw: st.DataObject
) -> None:
    leaves, start, stop = case
    proof = range_proof(levels_of(leaves), start, stop)
    root = merkle_root(leaves)
    assert root_from_range(leaves[start:stop], start, len(leaves), [*proof, leaves[0]]) is None
    if proof:
        i = draw.draw(st.integers(0, len(proof) - 1))
        changed = [*proof[:i], _flipped(proof[i], bit), *proof[i + 1 :]]
        assert root_from_range(leaves[start:stop], start, len(leaves), changed) != root
        assert (
            root_from_range(leaves[start:stop], start, len(leaves), proof[:i] + proof[i + 1 :])
            != root
        )


@given(ranges(), st.integers(-3, 80))
def test_another_place_fails(case: tuple[list[bytes], int, int], start: int) -> None:
    leaves, true_start, stop = case
    assume(start != true_start)
    proof = range_proof(levels_of(leaves), true_start, stop)
    assert root_from_range(leaves[true_start:stop], start, len(leaves), proof) != merkle_root(
        leaves
    )


def _turns(start: int, count: int, total: int) -> list[tuple[bool, bool, int]]:
    """Return the use of a proof level by level.

    Each entry says whether it has a digest on the left and on the right, and how many nodes they
    meet.
    """
    turns, first, last, width = [], start, start + count - 1, total
    while width > 1:
        left, right = first % 2 == 1, last % 2 == 0 and last + 1 < width
        turns.append((left, right, last - first + 1))
        first, last, width = (first - left) // 2, (last + right) // 2, (width + 1) // 2
    # Levels that only carry a node up do not count.
    return [turn for turn in turns if turn != (False, False, 1)]


@given(ranges(), st.integers(0, 140))
def test_another_size_fails(case: tuple[list[bytes], int, int], total: int) -> None:
    """The verifier knows the size, from a plan's borders; the prover does not choose it.

    Another size fails where it changes the path of the proof. Where the path is the same, the proof
    shows the same leaves in the same place.
    """
    leaves, start, stop = case
    proof = range_proof(levels_of(leaves), start, stop)
    shown = root_from_range(leaves[start:stop], start, total, proof) == merkle_root(leaves)
    same_path = stop <= total and _turns(start, stop - start, total) == _turns(
        start, stop - start, len(leaves)
    )
    assert shown == same_path
    if stop - start == len(leaves) or total < stop:
        assert shown == (total == len(leaves))


def test_a_node_never_passes_for_a_leaf() -> None:
    leaves = [leaf_digest(bytes([i])) for i in range(4)]
    inner = merkle_root(leaves[:2])
    assert leaf_digest(leaves[0] + leaves[1]) != inner
    assert merkle_root(
        [leaf_digest(leaves[0] + leaves[1]), leaf_digest(leaves[2] + leaves[3])]
    ) != merkle_root(leaves)
    assert digest(leaves[0], leaves[1]) != inner
    assert leaf_digest(b"") != digest(b"")


def test_golden() -> None:
    """Roots are part of the protocol."""
    assert digest(b"a", b"b") == blake3(b"ab").digest()
    assert merkle_root([]) == EMPTY_ROOT == blake3(b"hypergpu/empty").digest()
    leaves = leaves_of(bytes(range(100)), 16)
    assert len(leaves) == 7
    assert merkle_root(leaves[:1]) == leaves[0]
    assert (
        merkle_root(leaves).hex()
        == "5dead658e42fa64e7d217c841bba4a62400d4adf9d0258bc13510caacb6c1ee8"
    )


def test_empty_data_has_no_leaves_and_an_empty_range_no_proof() -> None:
    leaves = [leaf_digest(b"x")] * 3
    assert leaves_of(b"", 16) == []
    for start, stop in ((0, 0), (-1, 2), (2, 4), (2, 1)):
        with pytest.raises(ValueError, match="no range"):
            range_proof(levels_of(leaves), start, stop)
    assert root_from_range([], 0, 3, []) is None
    assert root_from_range(leaves, 0, 2, []) is None


@given(st.integers(0, 40))
def test_the_levels_of_a_tree_lead_to_its_root(count: int) -> None:
    leaves = [leaf_digest(bytes([i])) for i in range(count)]
    assert root_of(levels_of(leaves)) == merkle_root(leaves)
