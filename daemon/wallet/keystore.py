"""The keystore: an account's key, encrypted as Web3 Secret Storage (v3), and what it signs. The one importer of eth-account.

Source: https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage/. Nothing in here prints or logs,
and the key is in no `repr` and in no exception.
"""

from __future__ import annotations

import json
import secrets

import msgspec
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from eth_keys.exceptions import BadSignature

from protocol.keccak import Address, checked_address

SCRYPT_N = 1 << 18  # of the format's own description: about a second and 256 MB for whoever guesses a password, each time
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
MAX_KEYSTORE_BYTES = 1 << 16  # a keystore has 500 bytes
MAX_SCRYPT_N = 1 << 20  # a file that asks for more would take gigabytes to open


class WrongPassword(Exception):
    """The password does not open this keystore."""


class BadKeystore(Exception):
    """Not a keystore v3, or not a key. The message says what is wrong and holds nothing of the key."""


class _Kdf(msgspec.Struct, frozen=True):
    n: int = 0
    c: int = 0


class _Crypto(msgspec.Struct, frozen=True):
    kdf: str
    kdfparams: _Kdf


class _Document(msgspec.Struct, frozen=True):
    version: int
    address: str
    crypto: _Crypto


class UnlockedWallet:
    """An account that can sign. `repr` shows the address alone."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self.address: Address = account.address
        self.raw_address = bytes.fromhex(account.address[2:])
        self.public_key: bytes = account._key_obj.public_key.to_compressed_bytes()  # 33 bytes

    def __repr__(self) -> str:
        return f"UnlockedWallet({self.address})"

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes r ‖ s ‖ v (27 or 28) over a 32-byte digest that the caller computed (EIP-712). Deterministic (RFC 6979), s in the lower half."""
        return bytes(self._account.unsafe_sign_hash(digest).signature)

    def sign_text(self, text: str) -> bytes:
        """65 bytes over the text as EIP-191 wraps it (personal_sign)."""
        return bytes(self._account.sign_message(encode_defunct(text=text)).signature)

    def private_key(self) -> bytes:
        """The 32 bytes of the key, for whoever signs transactions. Never to be shown or kept."""
        return bytes(self._account.key)


def new_key() -> bytes:
    """32 random bytes that are a key."""
    return bytes(Account.create(secrets.token_hex(32)).key)


def wallet_of(key: bytes) -> UnlockedWallet:
    """The account of a key. Raises `BadKeystore` for 32 bytes that are none (0, or not below the curve's order)."""
    try:
        return UnlockedWallet(Account.from_key(key))
    except Exception:  # noqa: BLE001  # eth-keys raises several kinds, and their texts may quote the key: none of that goes on
        raise BadKeystore("these are not the 32 bytes of a secp256k1 key") from None


def seal(key: bytes, password: str, *, scrypt_n: int = SCRYPT_N) -> bytes:
    """The key as a keystore document (JSON)."""
    return json.dumps(Account.encrypt(key, password, kdf="scrypt", iterations=scrypt_n), indent=1).encode() + b"\n"


def address_in(document: bytes) -> Address:
    """The EIP-55 address that a keystore says it holds; no password is needed. Raises `BadKeystore`."""
    return checked_address("0x" + _read(document).address.lower().removeprefix("0x"))


def unseal(document: bytes, password: str) -> UnlockedWallet:
    """Open a keystore. Raises `WrongPassword` or `BadKeystore`."""
    said = address_in(document)
    try:
        key = bytes(Account.decrypt(json.loads(document), password))
    except ValueError as error:
        if "MAC" in str(error):
            raise WrongPassword from None
        raise BadKeystore("its encryption cannot be read") from None
    except (TypeError, KeyError):
        raise BadKeystore("its encryption cannot be read") from None
    wallet = wallet_of(key)
    if wallet.address != said:
        raise BadKeystore(f"it says it holds {said}, and holds {wallet.address}")
    return wallet


def _read(document: bytes) -> _Document:
    if len(document) > MAX_KEYSTORE_BYTES:
        raise BadKeystore(f"it has more than {MAX_KEYSTORE_BYTES} bytes")
    try:
        read = msgspec.json.decode(document, type=_Document)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadKeystore(f"it is no keystore v3: {error}") from None
    if read.version != 3:
        raise BadKeystore(f"it is a keystore of version {read.version}, not 3")
    if max(read.crypto.kdfparams.n, read.crypto.kdfparams.c >> 4) > MAX_SCRYPT_N:
        raise BadKeystore("its key derivation would take gigabytes or hours")
    try:
        checked_address("0x" + read.address.lower().removeprefix("0x"))
    except ValueError as error:
        raise BadKeystore(f"its address cannot be read: {error}") from None
    return read


def recover_text(text: str, signature: bytes) -> Address | None:
    """Who signed `text` as EIP-191 wraps it, with 65 bytes; None for what is no signature. A second spelling of one signature (s in the upper
    half) is none."""
    if len(signature) != 65 or int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        return str(Account.recover_message(encode_defunct(text=text), signature=signature))
    except (BadSignature, ValueError, TypeError):
        return None
