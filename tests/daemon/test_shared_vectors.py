"""Tests of vectors that two processes share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daemon.children import memory

COUNT = 1 << 20


def shared_kib() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem"))


@pytest.mark.real
def test_free_pages_frees_one_vector_and_leaves_its_neighbours() -> None:
    fd = memory.create()
    counts = (COUNT, COUNT + 7, COUNT)
    memory.give_size(fd, counts)
    vectors = memory.map_vectors(fd, counts)
    before = shared_kib()
    for number, vector in enumerate(vectors, start=1):
        vector[:] = number
    assert shared_kib() - before >= 3 * 4 * COUNT >> 10
    memory.free_pages(vectors[1])
    assert shared_kib() - before <= (2 * 4 * COUNT >> 10) + 64
    assert (vectors[0] == 1).all()
    assert (vectors[2] == 3).all()
    # Its inner pages are zeros, and can be written again.
    assert not vectors[1][2048:-2048].any()
    vectors[1][:] = 5
    assert (vectors[1] == 5).all()


@pytest.mark.real
def test_free_pages_leaves_a_vector_that_fills_no_page() -> None:
    fd = memory.create()
    memory.give_size(fd, (3, 3))
    first, second = memory.map_vectors(fd, (3, 3))
    first[:], second[:] = 1.0, 2.0
    memory.free_pages(first)
    assert np.array_equal(first, np.ones(3, np.float32))
    assert (second == 2.0).all()
