"""Results of many contributors travel with 8 bits or more."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import codec_named, entries
from protocol.codec.wide_results import NARROW_CONTRIBUTORS, with_results_for
from tests.protocol.codec.codecs import decoded


@pytest.mark.parametrize("name", [entry.name for entry in entries()])
def test_few_contributors_use_the_run_s_codec(name: str) -> None:
    codec = codec_named(name)
    assert with_results_for(codec, NARROW_CONTRIBUTORS) is codec


@pytest.mark.parametrize("name", [entry.name for entry in entries()])
def test_many_contributors_use_eight_bits_or_more(name: str) -> None:
    codec = codec_named(name)
    wide = with_results_for(codec, NARROW_CONTRIBUTORS + 1)
    assert 8 * wide.result.size(CHUNK_ELEMENTS) >= 8 * CHUNK_ELEMENTS
    if 8 * codec.result.size(CHUNK_ELEMENTS) >= 8 * CHUNK_ELEMENTS:
        assert wide is codec
        return
    # The contributions themselves travel as before.
    values = np.random.default_rng(1).standard_normal(CHUNK_ELEMENTS + 9, np.float32)
    data = codec.encode(values)
    assert wide.encode(values) == data
    assert wide.size(values.size) == len(data)
    assert np.array_equal(decoded(wide, data, values.size), decoded(codec, data, values.size))


def test_a_reducer_of_many_keeps_less_of_the_swarm_s_error_than_its_own_work() -> None:
    """At 4 bits it would keep more from about 15 members on."""
    members, codec = 32, codec_named("int4")
    mean = np.random.default_rng(2).standard_normal(16 * CHUNK_ELEMENTS, np.float32)

    def kept(contributors: int) -> float:
        result = with_results_for(codec, contributors).result
        lost = mean - decoded(result, result.encode(mean), mean.size)
        return members * float(np.linalg.norm(lost)) / float(np.linalg.norm(mean))

    assert kept(NARROW_CONTRIBUTORS) > 1.0
    assert kept(members) < 0.5
