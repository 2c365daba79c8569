"""Base58 in blocks: bytes as letters and digits that survive a chat, a mail and a double click.

Blocks of 8 bytes become 11 characters each (https://docs.getmonero.org/cryptography/base58). So a
text that was cut off still gives its first bytes, unlike one large number in base 58.
"""

from __future__ import annotations

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""No 0, O, I and l, which look alike."""

_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_BLOCK_BYTES = 8
_CHARS = (0, 2, 3, 5, 6, 7, 9, 10, 11)
"""The characters of a block of so many bytes."""

BLOCK_CHARS = _CHARS[_BLOCK_BYTES]


def encode(data: bytes) -> str:
    return "".join(
        _encode_block(data[start : start + _BLOCK_BYTES])
        for start in range(0, len(data), _BLOCK_BYTES)
    )


def encoded_chars(size_bytes: int) -> int:
    """The characters of so many bytes."""
    whole, rest = divmod(size_bytes, _BLOCK_BYTES)
    return whole * _CHARS[_BLOCK_BYTES] + _CHARS[rest]


def decode(text: str) -> bytes:
    """Decode a text; a last block that no number of bytes has is left out.

    Raises:
        ValueError: names a character that base58 does not have, or a block that no bytes give.
    """
    for place, letter in enumerate(text):
        if letter not in _VALUES:
            raise ValueError(f"character {place + 1}, {letter!a}, is no letter or digit of it")
    return b"".join(
        _decode_block(text[i : i + BLOCK_CHARS]) for i in range(0, len(text), BLOCK_CHARS)
    )


def _encode_block(block: bytes) -> str:
    number, letters = int.from_bytes(block, "big"), []
    for _ in range(_CHARS[len(block)]):
        number, value = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[value])
    return "".join(reversed(letters))


def _decode_block(text: str) -> bytes:
    if len(text) not in _CHARS:
        return b""
    size = _CHARS.index(len(text))
    number = 0
    for letter in text:
        number = number * len(ALPHABET) + _VALUES[letter]
    if number >> (8 * size):
        raise ValueError(f"{text!r} stands for no bytes")
    return number.to_bytes(size, "big")
