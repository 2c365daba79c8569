"""The keystore: an account's key, encrypted as Web3 Secret Storage (v3), and what it signs.

The one importer of eth-account.

Source: https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage/.
Nothing in here prints or logs, and the key is in no `repr` and in no exception.
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

# Of the format's own description: about a second and 256 MB for whoever guesses a password, each
# time.
SCRYPT_N = 1 << 18
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class WrongPassword(Exception):
    """The password does not open this keystore."""


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
        """65 bytes r ‖ s ‖ v (27 or 28) over a 32-byte digest that the caller computed (EIP-712).

        Deterministic (RFC 6979), s in the lower half.
        """
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
    """The account of a key.

    Raises `BadKeystore` for 32 bytes that are none (0, or not below the curve's order).
    """
    try:
        return UnlockedWallet(Account.from_key(key))
    except Exception:  # noqa: BLE001  # eth-keys raises several kinds, and their texts may quote the key: none of that goes on
        raise BadKeystore("these are not the 32 bytes of a secp256k1 key") from None


def seal(key: bytes, password: str, *, scrypt_n: int = SCRYPT_N) -> bytes:
    """The key as a keystore document (JSON), which geth, ethers and web3 open with the same
    password.
    """
    document = Account.encrypt(key, normalized(password), kdf="scrypt", iterations=scrypt_n)
    return json.dumps(document, indent=1).encode() + b"\n"


def address_in(document: bytes) -> Address:
    """The EIP-55 address that a keystore says it holds; no password is needed.

    Raises `BadKeystore`, also where it names none.
    """
    address = read_keystore(document).address
    if address is None:
        raise BadKeystore(
            "it names no address; hypergpud wallet import takes it over, and adds one"
        )
    return address


def unseal(document: bytes, password: str) -> UnlockedWallet:
    """Open a keystore, with any form of the password (`daemon.wallet.text`).

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
        raise BadKeystore(f"it holds {len(key)} bytes, and a key has {KEY_BYTES}")
    wallet = wallet_of(key.rjust(KEY_BYTES, b"\0"))  # old programs left out the zeros in front
    if keystore.address not in (None, wallet.address):
        raise BadKeystore(f"it says it holds {keystore.address}, and holds {wallet.address}")
    return wallet


def _decrypted(keystore: Keystore, password: str) -> bytes | None:
    """None where the password is another one. Raises `BadKeystore`."""
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
    """Who signed `text` as EIP-191 wraps it, with 65 bytes; None for what is no signature.

    A second spelling of one signature (s in the upper half) is none.
    """
    if len(signature) != 65 or int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        return str(Account.recover_message(encode_defunct(text=text), signature=signature))
    except (BadSignature, ValueError, TypeError):
        return None
