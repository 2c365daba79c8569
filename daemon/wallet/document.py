"""Reads a keystore document (Web3 Secret Storage, v3) of any program, before it is opened.

Programs differ: ethers writes "Crypto", geth's own vectors have no `address`, and some write the
version as text. Everything that costs memory or time is checked against limits here, before any of
it is spent.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from daemon.wallet.text import text_of
from protocol.chain.keccak import Address, checked_address

# A keystore has 500 bytes.
MAX_KEYSTORE_BYTES = 1 << 16
CIPHER = "aes-128-ctr"
PRF = "hmac-sha256"

# scrypt takes 128 * r * (n + p) bytes and n * r * p steps (RFC 7914). The format's own description
# has n = 2**18, r = 8 and p = 1, which take 256 MB and a second. The limits are four times that,
# for stronger files.
MAX_SCRYPT_BYTES = 1 << 30
MAX_SCRYPT_STEPS = 1 << 23
# Before and after scrypt's steps, PBKDF2 makes 4 * r * p blocks in interpreted code, and n = 2 with
# r = 2**20 took minutes. Programs write r * p up to 128.
MAX_SCRYPT_BLOCKS = 1 << 10
# PBKDF2 takes c steps for each 32 bytes. Programs write 262,144 to 1,000,000; 2**23 take 4 s.
MAX_PBKDF2_STEPS = 1 << 23

# The bytes derived from the password: half for the cipher, half for the MAC.
KEY_BYTES = 32
MAX_DERIVED_BYTES = 1 << 10


class BadKeystore(Exception):
    """A document is not a keystore v3, or does not contain a key.

    The message says what is wrong, and contains nothing of the key.
    """


# The limit is far above every bound, and small enough for exact products.
Number = Annotated[int, Meta(ge=0, le=1 << 40)]


class _Kdf(msgspec.Struct, frozen=True):
    salt: str
    dklen: Number
    n: Number = 0
    r: Number = 0
    p: Number = 0
    c: Number = 0
    prf: str = ""


class _CipherParameters(msgspec.Struct, frozen=True):
    iv: str


class _Crypto(msgspec.Struct, frozen=True):
    cipher: str
    cipherparams: _CipherParameters
    ciphertext: str
    kdf: str
    kdfparams: _Kdf
    mac: str


class _Document(msgspec.Struct, frozen=True):
    version: int | str
    crypto: _Crypto
    address: str | None = None


class Keystore(msgspec.Struct, frozen=True, kw_only=True):
    """A keystore that opens with bounded work.

    `address` is None if the document has none. `fields` is the document for eth-account.
    """

    address: Address | None
    fields: dict[str, Any]


def read_keystore(document: bytes) -> Keystore:
    """Read a document. Raises `BadKeystore`."""
    if len(document) > MAX_KEYSTORE_BYTES:
        raise BadKeystore(f"it has more than {MAX_KEYSTORE_BYTES} bytes")
    try:
        fields = _lower_keys(json.loads(text_of(document)))
        read = msgspec.convert(fields, _Document)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise BadKeystore(f"it is not a keystore v3: {error}") from None
    if str(read.version) != "3":
        raise BadKeystore(f"it is a keystore of version {read.version}, not 3")
    if read.crypto.cipher.lower() != CIPHER:
        raise BadKeystore(f"its cipher is {read.crypto.cipher!r:.40}, not {CIPHER}")
    _check_work(read.crypto.kdf, read.crypto.kdfparams)
    return Keystore(address=_address(read.address), fields={**fields, "version": 3})


def _address(said: str | None) -> Address | None:
    if not said:
        return None
    try:
        return checked_address("0x" + said.lower().removeprefix("0x"))
    except ValueError as error:
        raise BadKeystore(f"its address cannot be read: {error}") from None


def _check_work(kdf: str, asked: _Kdf) -> None:
    """Raise `BadKeystore` for a derivation that is invalid or takes gigabytes or minutes."""
    if not KEY_BYTES <= asked.dklen <= MAX_DERIVED_BYTES:
        raise BadKeystore(
            f"its key derivation gives {asked.dklen} bytes; "
            f"{KEY_BYTES} to {MAX_DERIVED_BYTES} are valid"
        )
    if kdf == "scrypt":
        if asked.n < 2 or asked.n & (asked.n - 1) or asked.r < 1 or asked.p < 1:
            raise BadKeystore(
                "scrypt needs an n that is a power of 2, and r and p of at least 1; it has "
                f"n = {asked.n}, r = {asked.r}, p = {asked.p}"
            )
        needed_bytes = 128 * asked.r * max(asked.n, asked.p)
        steps = asked.n * asked.r * asked.p
        if (
            needed_bytes > MAX_SCRYPT_BYTES
            or steps > MAX_SCRYPT_STEPS
            or asked.r * asked.p > MAX_SCRYPT_BLOCKS
        ):
            raise BadKeystore(
                f"its key derivation would take {needed_bytes / (1 << 30):.3g} GiB of memory and "
                f"{steps / (1 << 21):.3g} times the usual work "
                f"(n = {asked.n}, r = {asked.r}, p = {asked.p}): gigabytes or minutes"
            )
    elif kdf == "pbkdf2":
        steps = asked.c * -(-asked.dklen // KEY_BYTES)
        if asked.prf.lower() != PRF:
            raise BadKeystore(f"its key derivation uses {asked.prf!r:.40}, not {PRF}")
        if not 0 < steps <= MAX_PBKDF2_STEPS:
            raise BadKeystore(
                f"its key derivation takes {steps} steps; 1 to {MAX_PBKDF2_STEPS} are accepted"
            )
    else:
        raise BadKeystore(f"its key derivation is {kdf!r:.40}, neither scrypt nor pbkdf2")


def _lower_keys(value: Any) -> Any:
    """Convert all keys to lower case.

    Raises `ValueError` if two keys become equal, since nothing says which of them counts.
    """
    if not isinstance(value, dict):
        return value
    lowered = {key.lower(): _lower_keys(inner) for key, inner in value.items()}
    if len(lowered) != len(value):
        raise ValueError("two of its fields have the same name")
    return lowered
