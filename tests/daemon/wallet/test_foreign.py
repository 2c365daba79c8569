"""Keystores and password files that other programs wrote, and what a keystore may ask of this
machine.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from daemon.cli.main import run
from daemon.wallet import files, keystore, password
from daemon.wallet.document import BadKeystore, read_keystore
from daemon.wallet.keystore import WrongPassword, address_in, seal, unseal, wallet_of
from daemon.wallet.password import Password, find_password
from daemon.wallet.text import forms_of

QUICK = 1 << 8
ONE = (1).to_bytes(32, "big")
ONE_ADDRESS = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
COMPOSED, DECOMPOSED = "Gr\u00fc\u00dfe", "Gru\u0308\u00dfe"


def crypto(
    kdf: str, parameters: dict[str, Any], iv: str, ciphertext: str, mac: str
) -> dict[str, Any]:
    return {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv},
        "ciphertext": ciphertext,
        "kdf": kdf,
        "kdfparams": {"dklen": 32, **parameters},
        "mac": mac,
    }


# go-ethereum, accounts/keystore/testdata/v3_test_vector.json; the first two are the format's own,
# and none names an address.
GETH = {
    "scrypt": (
        crypto(
            "scrypt",
            {
                "n": 262144,
                "r": 1,
                "p": 8,
                "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
            },
            "83dbcc02d8ccb40e466191a123791e0e",
            "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
            "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
        ),
        "testpassword",
        "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
    ),
    "pbkdf2": (
        crypto(
            "pbkdf2",
            {
                "c": 262144,
                "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "6087dab2f9fdbbfaddc31a909735c1e6",
            "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        ),
        "testpassword",
        "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
    ),
    "31 bytes": (
        crypto(
            "scrypt",
            {
                "n": 2,
                "r": 8,
                "p": 1,
                "salt": "711f816911c92d649fb4c84b047915679933555030b3552c1212609b38208c63",
            },
            "e0c41130a323adc1446fc82f724bca2f",
            "9517cd5bdbe69076f9bf5057248c6c050141e970efa36ce53692d5d59a3984",
            "d5e116151c6aa71470e67a7d42c9620c75c4d23229847dcc127794f0732b0db5",
        ),
        "foo",
        "00fa7b3db73dc7dfdf8c5fbdb796d741e4488628c41fc4febd9160a866ba0f35",
    ),
    "30 bytes": (
        crypto(
            "scrypt",
            {
                "n": 2,
                "r": 8,
                "p": 1,
                "salt": "d0769e608fb86cda848065642a9c6fa046845c928175662b8e356c77f914cd3b",
            },
            "3ca92af36ad7c2cd92454c59cea5ef00",
            "108b7d34f3442fc26ab1ab90ca91476ba6bfa8c00975a49ef9051dc675aa",
            "75d0e6759f7b3cefa319c3be41680ab6beea7d8328653474bd06706d4cc67420",
        ),
        "foo",
        "000081c29e8142bb6a81bef5a92bda7a8328a5c85bb2f9542e76f9b0f94fc018",
    ),
}

# Written by ethers 6.17 for the key 1; the password was given to it decomposed, with a circled one
# behind it.
ETHERS = {
    "address": "7e5f4552091a69125d5dfcb7b8c2659029395bdf",
    "id": "505c5104-dcbc-4e7a-9be6-8ef64bf3d40a",
    "version": 3,
    "Crypto": crypto(
        "scrypt",
        {
            "n": 256,
            "r": 8,
            "p": 1,
            "salt": "d95d9da7ca99798ccd33c1c8f2ce750feb090c675c0543dd5728de8040c38697",
        },
        "12a8eaf4372b48e63bcf6a8f6a02ec63",
        "fccc6df3bdd95fb554d5458c6dfb6d37147146ecd8854bb350a894f031ee355a",
        "a380f029ffd1abe5ca94897c3c12052a786da8ae8b39eb4aa5c98f3928abb300",
    ),
}


@pytest.mark.parametrize("name", GETH)
def test_geths_vectors_open(name: str) -> None:
    sealed, text, key = GETH[name]
    wallet = unseal(json.dumps({"crypto": sealed, "id": "x", "version": 3}).encode(), text)
    assert wallet.private_key().hex() == key


@pytest.mark.parametrize("typed", [COMPOSED + " \u2460", DECOMPOSED + " \u2460", COMPOSED + " 1"])
def test_a_keystore_of_ethers_opens_however_its_password_is_typed(typed: str) -> None:
    document = json.dumps(ETHERS).encode()
    assert unseal(document, typed).address == address_in(document) == ONE_ADDRESS
    with pytest.raises(WrongPassword):
        unseal(document, typed + "x")


@pytest.mark.parametrize(
    "changed",
    [
        lambda document: document | {"version": "3"},
        lambda document: document | {"address": "0x" + document["address"].upper()},
        lambda document: {key.upper(): value for key, value in document.items()},
        lambda document: document | {"address": ""},
        lambda document: document | {"x-ethers": {"client": "ethers/6"}},
    ],
)
def test_other_spellings_of_a_keystore_open(changed: Any) -> None:
    document = json.loads(seal(ONE, "x", scrypt_n=QUICK))
    for mark in ("utf-8", "utf-8-sig", "utf-16"):
        assert unseal(json.dumps(changed(document)).encode(mark), "x").address == ONE_ADDRESS


def test_what_is_sealed_here_opens_elsewhere_under_the_normalized_password() -> None:
    document = seal(ONE, DECOMPOSED, scrypt_n=QUICK)
    assert bytes(Account.decrypt(json.loads(document), COMPOSED)) == ONE
    assert seal(ONE, COMPOSED, scrypt_n=QUICK) != document  # another salt
    assert unseal(document, COMPOSED).address == unseal(document, DECOMPOSED).address == ONE_ADDRESS


@pytest.mark.parametrize(
    "typed_then", [DECOMPOSED, COMPOSED, "\ufeff" + COMPOSED, "\u2460", "\ufeffsecret"]
)
def test_a_wallet_that_an_earlier_version_made_still_opens(typed_then: str) -> None:
    """It took the password as it came, and a file's byte order mark with it."""
    document = json.dumps(Account.encrypt(ONE, typed_then, kdf="scrypt", iterations=QUICK)).encode()
    assert unseal(document, typed_then.removeprefix("\ufeff")).address == ONE_ADDRESS


def test_a_plain_password_is_tried_in_two_forms_at_most() -> None:
    """A wrong one takes as many seconds."""
    assert forms_of("correct horse") == ("correct horse", "\ufeffcorrect horse")


# ------------------------------------------------------------------------------------------------ bounds


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
def test_what_programs_really_write_is_taken(n: int, r: int, p: int) -> None:
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
    if held != "zz":  # its MAC would have to be made anew
        monkeypatch.setattr(keystore.Account, "decrypt", lambda *_: bytes.fromhex(held))
    with pytest.raises(BadKeystore, match=said):
        unseal(json.dumps({"version": 3, "crypto": sealed | changed}).encode(), "foo")


def test_two_fields_of_one_name_are_refused() -> None:
    sealed, _, _ = GETH["31 bytes"]
    with pytest.raises(BadKeystore, match="the same name"):
        unseal(json.dumps({"version": 3, "crypto": sealed, "Crypto": sealed}).encode(), "foo")


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r\nnot this\r\n"])
def test_a_password_file_of_any_editor_is_the_same_password(
    tmp_path: Path, encoding: str, end: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes((COMPOSED + end).encode(encoding))
    path.chmod(0o600)
    assert find_password(path, {}, "").text == COMPOSED


def test_a_wallet_of_a_file_with_a_mark_opens_with_the_typed_password(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes("correct horse\r\n".encode("utf-8-sig"))
    path.chmod(0o600)
    files.create(tmp_path / "home", ONE, find_password(path, {}, "").text, scrypt_n=QUICK)
    assert (
        files.unlock(tmp_path / "home", Password(text="correct horse", source="typed")).address
        == ONE_ADDRESS
    )


def test_import_takes_keystores_without_an_address_and_keys_of_notepad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files.create, "__kwdefaults__", {"scrypt_n": QUICK})
    secret = tmp_path / "password"
    secret.write_text("foo")
    secret.chmod(0o600)
    monkeypatch.setenv(password.VARIABLE, str(secret))
    sealed, _, key = GETH["31 bytes"]
    sources = {
        "keystore": json.dumps({"Crypto": sealed, "version": 3}).encode(),
        "marked": json.dumps({"crypto": sealed, "version": 3}).encode("utf-8-sig"),
        "hex": ("0X" + key.upper() + "\r\n").encode("utf-16"),
    }
    for name, raw in sources.items():
        (tmp_path / name).write_bytes(raw)
        assert (
            run(
                ["--home", str(tmp_path / f"home-{name}"), "wallet", "import", str(tmp_path / name)]
            )
            == 0
        )
        assert (
            files.address_in_home(tmp_path / f"home-{name}")
            == wallet_of(bytes.fromhex(key)).address
        )
    out, err = capfd.readouterr()
    assert key[2:] not in (out + err).lower()
    home = tmp_path / "copied"
    home.mkdir()
    (home / "wallet.json").write_bytes(sources["keystore"])
    (home / "wallet.json").chmod(0o600)
    assert run(["--home", str(home), "wallet", "show"]) == 5
    assert "wallet import" in capfd.readouterr().err
