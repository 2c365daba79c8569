"""Keccak-256 as Ethereum uses it (the padding before SHA-3 was standardized), and addresses with
the checksum of EIP-55.

The one module of the protocol that imports pycryptodome: neither hashlib nor `cryptography` has
this hash. hashlib's `sha3_256` pads differently and gives other digests. Settlement needs it,
because the root that everybody recomputes is checked by a contract.
"""

from __future__ import annotations

from Crypto.Hash import keccak

Address = str
"""A chain account: "0x" and 40 hex digits with the capitals of EIP-55, so that equal accounts are equal texts."""

ZERO_ADDRESS: Address = "0x" + "0" * 40


def keccak256(data: bytes) -> bytes:
    """32 bytes."""
    return bytes(keccak.new(data=data, digest_bits=256).digest())


def address_of(account: bytes) -> Address:
    """The text of a 20-byte account. Raises `ValueError` for any other length."""
    if len(account) != 20:
        raise ValueError(f"an account has 20 bytes, not {len(account)}")
    digits = account.hex()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(mark, 16) >= 8 else digit
        for digit, mark in zip(digits, marks, strict=False)
    )


def account_bytes(address: Address) -> bytes:
    """The 20 bytes of an address.

    Raises `ValueError` for what is none, and for capitals that spell another one (a mistyped
    digit).
    """
    digits = address[2:]
    if not address.startswith("0x") or len(digits) != 40 or not digits.isascii():
        raise ValueError(f"{address!r} is not an address: 0x and 40 hex digits")
    try:
        account = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{address!r} is not an address: 0x and 40 hex digits") from None
    if digits not in (digits.lower(), digits.upper()) and address_of(account) != address:
        raise ValueError(
            f"{address} has the wrong capitals for an address (EIP-55): one of its digits was mistyped"
        )
    return account


def checked_address(address: Address) -> Address:
    """The address with its checksum, from any spelling. Raises `ValueError` as `account_bytes`."""
    return address_of(account_bytes(address))
