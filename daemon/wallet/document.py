"""A keystore document (Web3 Secret Storage, v3) of any program before it is opened: its fields, and
how much work it asks for.

Programs differ: ethers writes "Crypto", geth's own vectors have no `address`, some write the
version as text. Everything that costs memory or time is bounded here, before any of it is spent.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from daemon.wallet.text import text_of
from protocol.chain.keccak import Address, checked_address

MAX_KEYSTORE_BYTES = 1 << 16  # a keystore has 500 bytes
CIPHER = "aes-128-ctr"
PRF = "hmac-sha256"

# scrypt takes 128 * r * (n + p) bytes and n * r * p steps (RFC 7914). The format's own description
# asks for n = 2**18, r = 8, p = 1: 256 MB, and a second. Four times of both leave room for stronger
# files.
MAX_SCRYPT_BYTES = 1 << 30
MAX_SCRYPT_STEPS = 1 << 23
# Before and after, PBKDF2 makes 4 * r * p blocks, each by interpreted code: n = 2, r = 2**20 took
# minutes. Programs write r * p up to 128.
MAX_SCRYPT_BLOCKS = 1 << 10
# PBKDF2 takes c steps for each 32 bytes; other programs write 262,144 to 1,000,000. 2**23 take 4 s.
MAX_PBKDF2_STEPS = 1 << 23

# Derived from the password: half for the cipher, half for the MAC.
KEY_BYTES = 32
MAX_DERIVED_BYTES = 1 << 10


class BadKeystore(Exception):
    """Not a keystore v3, or not a key.

    The message says what is wrong and holds nothing of the key.
    """


# The limit is far above every bound, and small enough to reckon with.
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
    """A keystore that can be opened with bounded work.

    `address` is None where the document names none; `fields` is for eth-account.
    """

    address: Address | None
    fields: dict[str, Any]


def read_keystore(document: bytes) -> Keystore:
    """Raises `BadKeystore`."""
    if len(document) > MAX_KEYSTORE_BYTES:
        raise BadKeystore(f"it has more than {MAX_KEYSTORE_BYTES} bytes")
    try:
        fields = _lower_keys(json.loads(text_of(document)))
        read = msgspec.convert(fields, _Document)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise BadKeystore(f"it is no keystore v3: {error}") from None
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
    """Raises `BadKeystore` for a derivation that is none, or that would take gigabytes or minutes."""
    if not KEY_BYTES <= asked.dklen <= MAX_DERIVED_BYTES:
        raise BadKeystore(
            f"its key derivation gives {asked.dklen} bytes, and {KEY_BYTES} are needed"
        )
    if kdf == "scrypt":
        if asked.n < 2 or asked.n & (asked.n - 1) or asked.r < 1 or asked.p < 1:
            raise BadKeystore(
                f"scrypt takes no n = {asked.n}, r = {asked.r}, p = {asked.p}: n is a power of 2"
            )
        needed_bytes = 128 * asked.r * max(asked.n, asked.p)
        steps = asked.n * asked.r * asked.p
        if (
            needed_bytes > MAX_SCRYPT_BYTES
            or steps > MAX_SCRYPT_STEPS
            or asked.r * asked.p > MAX_SCRYPT_BLOCKS
        ):
            raise BadKeystore(
                f"its key derivation would take {needed_bytes / (1 << 30):.3g} GiB of memory and {steps / (1 << 21):.3g} times "
                f"the usual work (n = {asked.n}, r = {asked.r}, p = {asked.p}): gigabytes or minutes"
            )
    elif kdf == "pbkdf2":
        steps = asked.c * -(-asked.dklen // KEY_BYTES)
        if asked.prf.lower() != PRF:
            raise BadKeystore(f"its key derivation is over {asked.prf!r:.40}, not {PRF}")
        if not 0 < steps <= MAX_PBKDF2_STEPS:
            raise BadKeystore(
                f"its key derivation takes {steps} steps, and between 1 and {MAX_PBKDF2_STEPS} are taken: minutes or none"
            )
    else:
        raise BadKeystore(f"its key derivation is {kdf!r:.40}, neither scrypt nor pbkdf2")


def _lower_keys(value: Any) -> Any:
    """With all keys in small letters.

    Raises `ValueError` where two become one: nothing says which of them counts.
    """
    if not isinstance(value, dict):
        return value
    lowered = {key.lower(): _lower_keys(inner) for key, inner in value.items()}
    if len(lowered) != len(value):
        raise ValueError("two of its fields have one name")
    return lowered
