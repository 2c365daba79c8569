"""The keystore: who can open it, and what its account signs."""

from __future__ import annotations

import json

import pytest

from daemon.wallet.document import BadKeystore
from daemon.wallet.keystore import WrongPassword, new_key, seal, unseal, wallet_of
from protocol.chain.keccak import checked_address
from tests.daemon.wallet.wallets import ONE, ONE_ADDRESS, QUICK


def test_a_keystore_opens_with_its_password_alone() -> None:
    document = seal(ONE, "correct horse", scrypt_n=QUICK)
    assert unseal(document, "correct horse").address == ONE_ADDRESS
    assert ONE.hex() not in document.decode()
    with pytest.raises(WrongPassword):
        unseal(document, "wrong horse")


def test_the_published_vector_of_the_format_opens() -> None:
    """The vector is the PBKDF2 one of ethereum.org's page on web3 secret storage."""
    vector = {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262144,
                "dklen": 32,
                "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3,
        "address": "008aeeda4d805471df9b2a5b0f38a0c3bcba786b",
    }
    wallet = unseal(json.dumps(vector).encode(), "testpassword")
    assert (
        wallet.private_key().hex()
        == "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
    )


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[" * 50_000,
        b'{"version":1,"address":"00","crypto":{"kdf":"scrypt","kdfparams":{}}}',
        b"x" * 70_000,
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_no_keystore_is_refused(document: bytes) -> None:
    with pytest.raises(BadKeystore):
        unseal(document, "x")


def test_a_keystore_that_asks_for_gigabytes_is_refused() -> None:
    document = json.loads(seal(ONE, "x", scrypt_n=QUICK))
    document["crypto"]["kdfparams"]["n"] = 1 << 30
    with pytest.raises(BadKeystore, match="gigabytes"):
        unseal(json.dumps(document).encode(), "x")


def test_a_keystore_that_names_another_address_is_refused() -> None:
    document = json.loads(seal(ONE, "x", scrypt_n=QUICK))
    document["address"] = "00" * 20
    with pytest.raises(BadKeystore, match="its address is"):
        unseal(json.dumps(document).encode(), "x")


def test_signatures_equal_the_vector_and_the_key_is_never_printed() -> None:
    wallet = wallet_of(ONE)
    text = (
        '{"agent":"0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",'
        '"processed_tokens":600,"timestamp":1770000000}'
    )
    assert wallet.sign_text(text).hex() == (
        "b34834d1c90f00d82a0ed0df1ab75b626a5a4a524547549b3d948d59d106819d"
        "5f3c92ff59e78998760bacf5945a33ca2aa048786fd64d6ea41d524f2eb4a46e1b"
    )
    secret = new_key()
    assert secret.hex() not in repr(wallet_of(secret)) + repr(vars(wallet_of(secret)))
    with pytest.raises(BadKeystore) as caught:
        wallet_of(b"\xff" * 32)
    assert "ff" * 8 not in str(caught.value)
    assert caught.value.__cause__ is None


def test_addresses_are_checked_against_typing_errors() -> None:
    assert checked_address(ONE_ADDRESS.lower()) == ONE_ADDRESS
    for wrong in (
        ONE_ADDRESS.replace("7E", "7e"),
        ONE_ADDRESS[2:],
        ONE_ADDRESS[:-1],
        "0x" + "g" * 40,
        "",
    ):
        with pytest.raises(ValueError, match=r"0x and 40|EIP-55"):
            checked_address(wrong)
