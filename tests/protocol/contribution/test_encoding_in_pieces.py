"""Tests that a ledger encodes piece by piece what its codec encodes as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named
from protocol.contribution.ledger import PIECE_ELEMENTS, Ledger

PARAMETERS = 2 * PIECE_ELEMENTS + 5000


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "int8", "int4", "topk"])
def test_an_offer_in_given_memory_has_the_bytes_of_the_whole_vector(name: str) -> None:
    codec = codec_named(name)
    draw = np.random.default_rng(0)
    residue, delta = (draw.standard_normal(PARAMETERS).astype(np.float32) for _ in range(2))
    ledger = Ledger(PARAMETERS, codec, 1 << 30, 3)
    ledger.residue[:], ledger.weight = residue, 5
    ledger.add(delta, 7)
    learned: Vector = residue + delta * np.float32(7)
    offer = ledger.make_offer(memoryview(bytearray(codec.size(PARAMETERS))))
    assert bytes(offer.encoded) == bytes(codec.encode(learned, over=12))
