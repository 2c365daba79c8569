"""The keystore: an account's key, encrypted as Web3 Secret Storage (v3), and its signatures.

Only this module imports eth-account. It prints and logs nothing, and the key is in no `repr` and in
no exception. Source of the format:
https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage/
"""

from __future__ import annotations

import json
import secrets

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from eth_keys.exceptions import BadSignature

from daemon.wallet.document import KEY_BYTES, BadKeystore, Keystore, read_keystore
from daemon.wallet.text import forms_of, normalized
from protocol.chain.keccak import Address

# The value in the format's own description. Each guess of a password takes about a second and
# 256 MB.
SCRYPT_N = 1 << 18
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class WrongPassword(Exception):
    """The password does not open this keystore."""


class UnlockedWallet:
    """An account that can sign. Its `repr` shows only the address."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self.address: Address = account.address
        self.raw_address = bytes.fromhex(account.address[2:])
        # 33 bytes.
        self.public_key: bytes = account._key_obj.public_key.to_compressed_bytes()

    def __repr__(self) -> str:
        return f"UnlockedWallet({self.address})"

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest (EIP-712). Returns r, s and v: 65 bytes, where v is 27 or 28.

        The signature is deterministic (RFC 6979), and s is in the lower half.
        """
        return bytes(self._account.unsafe_sign_hash(digest).signature)  # type: ignore[arg-type]

    def sign_text(self, text: str) -> bytes:
        """Sign a text as EIP-191 wraps it (personal_sign). Returns 65 bytes."""
        return bytes(self._account.sign_message(encode_defunct(text=text)).signature)

    def private_key(self) -> bytes:
        """Return the key's 32 bytes, to sign transactions. Never show or keep them."""
        return bytes(self._account.key)


def new_key() -> bytes:
    """Make a random key of 32 bytes."""
    return bytes(Account.create(secrets.token_hex(32)).key)


def wallet_of(key: bytes) -> UnlockedWallet:
    """Return the account of a key.

    Raises `BadKeystore` for 0, and for numbers that are not below the curve's order.
    """
    try:
        return UnlockedWallet(Account.from_key(key))
    # eth-keys raises several kinds of errors. Their texts may quote the key, so they end here.
    except Exception:  # noqa: BLE001
        raise BadKeystore("these are not the 32 bytes of a secp256k1 key") from None


def seal(key: bytes, password: str, *, scrypt_n: int = SCRYPT_N) -> bytes:
    """Encrypt a key as a keystore (JSON), which geth, ethers and web3 open, too."""
    document = Account.encrypt(key, normalized(password), kdf="scrypt", iterations=scrypt_n)
    return json.dumps(document, indent=1).encode() + b"\n"


def address_in(document: bytes) -> Address:
    """Return the EIP-55 address in a keystore, without a password.

    Raises `BadKeystore`, too, if the keystore has no address.
    """
    address = read_keystore(document).address
    if address is None:
        raise BadKeystore("it has no address; hypergpud wallet import imports it and adds one")
    return address


def unseal(document: bytes, password: str) -> UnlockedWallet:
    """Open a keystore with any form of the password (`daemon.wallet.text`).

    Raises `WrongPassword` or `BadKeystore`.
    """
    keystore = read_keystore(document)
    for form in forms_of(password):
        key = _decrypted(keystore, form)
        if key is not None:
            break
    else:
        raise WrongPassword
    if not 0 < len(key) <= KEY_BYTES:
        raise BadKeystore(f"it contains {len(key)} bytes, and a key has {KEY_BYTES}")
    # Old programs left out leading zeros.
    wallet = wallet_of(key.rjust(KEY_BYTES, b"\0"))
    if keystore.address not in (None, wallet.address):
        raise BadKeystore(
            f"its address is {keystore.address}, but its key is that of {wallet.address}"
        )
    return wallet


def _decrypted(keystore: Keystore, password: str) -> bytes | None:
    """Decrypt a key; None for a wrong password. Raises `BadKeystore`."""
    try:
        return bytes(Account.decrypt(keystore.fields, password))
    except ValueError as error:
        if "MAC" in str(error):
            return None
        raise BadKeystore("its encryption cannot be read") from None
    except (TypeError, KeyError):
        raise BadKeystore("its encryption cannot be read") from None
    except MemoryError:
        raise BadKeystore("this machine has too little memory for its key derivation") from None


def recover_text(text: str, signature: bytes) -> Address | None:
    """Recover the account that signed `text` (EIP-191); None for an invalid signature.

    A signature whose s is in the upper half is invalid, since it is a second form of another one.
    """
    if len(signature) != 65 or int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        return str(Account.recover_message(encode_defunct(text=text), signature=signature))
    except (BadSignature, ValueError, TypeError):
        return None
