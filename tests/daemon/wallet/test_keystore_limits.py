"""Keystores that ask for too much work, or that are not keystores, are refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from daemon.wallet import keystore
from daemon.wallet.document import BadKeystore, read_keystore
from daemon.wallet.keystore import unseal
from tests.daemon.wallet.foreign_keystores import GETH, crypto


@pytest.mark.parametrize(
    ("kdf", "parameters"),
    [
        ("scrypt", {"n": 2, "r": 1 << 20, "p": 1}),
        ("scrypt", {"n": 2, "r": 1, "p": 1 << 20}),
        ("scrypt", {"n": 2, "r": 1 << 20, "p": 1 << 10}),
        ("scrypt", {"n": 2, "r": 1 << 23, "p": 1}),
        ("scrypt", {"n": 1 << 18, "r": 8, "p": 5}),
        ("scrypt", {"n": 1 << 21, "r": 8, "p": 1}),
        ("scrypt", {"n": 1 << 30, "r": 1, "p": 1}),
        ("scrypt", {"n": 2, "r": 8, "p": 1 << 30}),
        ("scrypt", {"n": 10**400, "r": 8, "p": 1}),
        ("scrypt", {"n": 3, "r": 8, "p": 1}),
        ("scrypt", {"n": 0, "r": 8, "p": 1}),
        ("scrypt", {"n": -2, "r": 8, "p": 1}),
        ("scrypt", {"n": 1024, "r": 0, "p": 1}),
        ("scrypt", {"n": 1024}),
        ("scrypt", {"n": 1024, "r": 8, "p": 1, "dklen": 16}),
        ("scrypt", {"n": 1024, "r": 8, "p": 1, "dklen": 1 << 30}),
        ("pbkdf2", {"c": (1 << 23) + 1, "prf": "hmac-sha256"}),
        ("pbkdf2", {"c": 1 << 20, "prf": "hmac-sha256", "dklen": 1 << 10}),
        ("pbkdf2", {"c": 0, "prf": "hmac-sha256"}),
        ("pbkdf2", {"c": 1000, "prf": "hmac-md5"}),
        ("argon2", {}),
    ],
)
def test_a_keystore_that_asks_for_too_much_is_refused_before_any_work(
    kdf: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> bytes:
        raise AssertionError("it was begun")

    monkeypatch.setattr(keystore.Account, "decrypt", work)
    document = json.dumps(
        {
            "version": 3,
            "crypto": crypto(kdf, {"salt": "00", **parameters}, "00" * 16, "00" * 32, "00" * 32),
        }
    )
    began = time.perf_counter()
    with pytest.raises(BadKeystore):
        unseal(document.encode(), "x")
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("n", "r", "p"),
    [(1 << 18, 8, 1), (1 << 18, 1, 8), (1 << 13, 8, 16), (1 << 20, 8, 1), (1 << 18, 8, 4)],
)
def test_keystores_of_other_programs_are_accepted(n: int, r: int, p: int) -> None:
    read_keystore(
        json.dumps(
            {
                "version": 3,
                "crypto": crypto("scrypt", {"n": n, "r": r, "p": p, "salt": "00"}, "", "", ""),
            }
        ).encode()
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cipher": "aes-256-gcm"}, "cipher"),
        ({"ciphertext": "00" * 33}, "33 bytes"),
        ({"ciphertext": ""}, "0 bytes"),
        ({"ciphertext": "zz"}, "cannot be read"),
    ],
)
def test_a_keystore_of_another_kind_or_length_is_refused(
    changed: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, _, _ = GETH["31 bytes"]
    held = changed.get("ciphertext", "00" * 31)
    # The change would need a new MAC.
    if held != "zz":
        monkeypatch.setattr(keystore.Account, "decrypt", lambda *_: bytes.fromhex(held))
    with pytest.raises(BadKeystore, match=said):
        unseal(json.dumps({"version": 3, "crypto": sealed | changed}).encode(), "foo")


def test_two_fields_of_one_name_are_refused() -> None:
    sealed, _, _ = GETH["31 bytes"]
    with pytest.raises(BadKeystore, match="the same name"):
        unseal(json.dumps({"version": 3, "crypto": sealed, "Crypto": sealed}).encode(), "foo")
