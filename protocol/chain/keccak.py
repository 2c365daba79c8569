"""Keccak-256 as Ethereum uses it, and addresses with the checksum of EIP-55.

Ethereum uses the padding from before SHA-3 was standardized, so hashlib's `sha3_256` gives other
digests. This is the one module of the protocol that imports pycryptodome: neither hashlib nor
`cryptography` has this hash. Settlement needs it, because a contract checks the root that everyone
recomputes.
"""

from __future__ import annotations

from Crypto.Hash import keccak

Address = str
"""A chain account: "0x" and 40 hex digits with the capitals of EIP-55.

Equal accounts are equal texts.
"""

ZERO_ADDRESS: Address = "0x" + "0" * 40


def keccak256(data: bytes) -> bytes:
    """Return the hash, 32 bytes."""
    return bytes(keccak.new(data=data, digest_bits=256).digest())


def address_of(account: bytes) -> Address:
    """Return the address of a 20-byte account. Raises `ValueError` for any other length."""
    if len(account) != 20:
        raise ValueError(f"an account has 20 bytes, not {len(account)}")
    digits = account.hex()
    marks = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(mark, 16) >= 8 else digit
        for digit, mark in zip(digits, marks, strict=False)
    )


def account_bytes(address: Address) -> bytes:
    """Return the 20 bytes of an address.

    Raises `ValueError` for text that is not an address, and for capitals of another address, as in
    a mistyped digit.
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
            f"{address} has the wrong capitals for an address (EIP-55): one of its digits was "
            "mistyped"
        )
    return account


def checked_address(address: Address) -> Address:
    """Return the address with its checksum, from any spelling. Raises as `account_bytes`."""
    return address_of(account_bytes(address))
