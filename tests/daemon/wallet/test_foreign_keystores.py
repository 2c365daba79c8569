"""Keystores and password files of other programs and editors open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from daemon.cli.main import run
from daemon.wallet import files, password
from daemon.wallet.keystore import WrongPassword, address_in, seal, unseal, wallet_of
from daemon.wallet.password import Password, find_password
from daemon.wallet.text import forms_of
from tests.daemon.wallet.foreign_keystores import (
    COMPOSED,
    DECOMPOSED,
    ETHERS,
    GETH,
    ONE,
    ONE_ADDRESS,
    QUICK,
)


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


def test_a_wallet_sealed_here_opens_elsewhere_with_the_normalized_password() -> None:
    document = seal(ONE, DECOMPOSED, scrypt_n=QUICK)
    assert bytes(Account.decrypt(json.loads(document), COMPOSED)) == ONE
    # The second file has another salt.
    assert seal(ONE, COMPOSED, scrypt_n=QUICK) != document
    assert unseal(document, COMPOSED).address == unseal(document, DECOMPOSED).address == ONE_ADDRESS


@pytest.mark.parametrize(
    "typed_then", [DECOMPOSED, COMPOSED, "\ufeff" + COMPOSED, "\u2460", "\ufeffsecret"]
)
def test_a_wallet_of_an_earlier_version_still_opens(typed_then: str) -> None:
    """That version used the password unchanged, including a file's byte order mark."""
    document = json.dumps(Account.encrypt(ONE, typed_then, kdf="scrypt", iterations=QUICK)).encode()
    assert unseal(document, typed_then.removeprefix("\ufeff")).address == ONE_ADDRESS


def test_a_plain_password_is_tried_in_two_forms_at_most() -> None:
    """Each try of a wrong password takes seconds."""
    assert forms_of("correct horse") == ("correct horse", "\ufeffcorrect horse")


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
