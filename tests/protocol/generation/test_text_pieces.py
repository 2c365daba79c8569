"""Tests the text of an answer while it is made: characters of many tokens, and stop sequences."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.generation.text_pieces import WINDOW_TOKENS, TextPieces


def decode_bytes(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", "replace")


def decode_each_byte(tokens: Sequence[int]) -> str:
    """As decoders do that replace each byte of a broken character by a sign of its own."""
    text, raw = "", bytes(tokens)
    while raw:
        try:
            return text + raw.decode()
        except UnicodeDecodeError as error:
            text += raw[: error.start].decode() + "\N{REPLACEMENT CHARACTER}"
            raw = raw[error.start + 1 :]
    return text


def decode_words(tokens: Sequence[int]) -> str:
    """As SentencePiece's decoders do: the space before the first word is dropped."""
    return "".join(f" {token}" for token in tokens).removeprefix(" ")


def made(pieces: TextPieces, tokens: Sequence[int]) -> list[str]:
    return [*(pieces.add(token) for token in tokens), pieces.rest()]


@given(st.lists(st.sampled_from([*"aé東😀".encode(), 0xFF, 0xE6]), max_size=40))
def test_pieces_of_any_bytes_are_the_whole_text(tokens: list[int]) -> None:
    for decode in (decode_bytes, decode_each_byte):
        assert "".join(made(TextPieces(decode), tokens)) == decode(tokens)


@pytest.mark.parametrize("decode", [decode_bytes, decode_words])
def test_pieces_come_at_once_and_window_moves(decode: object) -> None:
    tokens = [ord("a")] * (5 * WINDOW_TOKENS)
    longest = 0

    def watched(part: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(part))
        return decode(part)  # type: ignore[operator]

    pieces = TextPieces(watched)
    found = [pieces.add(token) for token in tokens]
    assert all(found)
    assert "".join(found) == decode(tokens)  # type: ignore[operator]
    # The cost of a token does not grow with the text.
    assert longest <= 2 * WINDOW_TOKENS


def test_character_of_many_bytes_comes_whole() -> None:
    assert made(TextPieces(decode_bytes), list("é東".encode())) == ["", "é", "", "", "東", ""]


@given(
    st.text(alphabet="ab\n", max_size=30),
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_ends_before_the_first_stop_sequence(text: str, stops: list[str]) -> None:
    pieces = TextPieces(decode_bytes, stops)
    found = "".join(made(pieces, list(text.encode())))
    first = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    # Sequences that overlap: the one that is complete first ends the text.
    ends = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        assert found == text
        assert not pieces.stopped
    else:
        complete = text[: min(ends)]
        assert found == complete[: min(complete.find(stop) for stop in stops if stop in complete)]
        assert pieces.stopped
        assert first is not None
        assert pieces.add(ord("a")) == ""


def test_beginning_of_a_stop_sequence_waits() -> None:
    assert made(TextPieces(decode_bytes, ["END"]), list(b"xENEND")) == [
        "x",
        "",
        "",
        "EN",
        "",
        "",
        "",
    ]
    # "EN" was text after all.
    assert made(TextPieces(decode_bytes, ["END"]), list(b"xENa")) == ["x", "", "", "ENa", ""]
