"""Base58 in blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.text import base58


@given(st.binary(max_size=100))
def test_text_gives_its_bytes_back(data: bytes) -> None:
    text = base58.encode(data)
    assert base58.decode(text) == data
    assert len(text) == base58.encoded_chars(len(data))
    assert not text or text.isalnum()


@given(st.binary(min_size=9, max_size=100))
def test_a_beginning_gives_the_first_blocks(data: bytes) -> None:
    text = base58.encode(data)
    assert base58.decode(text[:11]) == data[:8]
    assert data.startswith(base58.decode(text[:12]))


@pytest.mark.parametrize("text", ["0", "lll", "a-b", "zzzzzzzzzzz"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no letter|no bytes"):
        base58.decode(text)
