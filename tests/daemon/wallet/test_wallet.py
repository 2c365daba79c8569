"""The wallet: its files, its password sources, its commands, and that nothing of the key is ever
said.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from daemon.cli.main import cli, run
from daemon.wallet import files, password
from daemon.wallet.document import BadKeystore
from daemon.wallet.keystore import WrongPassword, new_key, seal, unseal, wallet_of
from daemon.wallet.password import Password, find_password
from protocol.chain.keccak import checked_address
from protocol.errors import UserError

# Scrypt's work, for tests of everything but its cost.
QUICK = 1 << 8
NOBODY = 65534  # a user that owns nothing
ONE = (1).to_bytes(32, "big")
ONE_ADDRESS = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("correct horse\nnot this line\n")
    path.chmod(0o600)
    return path


def given(text: str = "correct horse") -> Password:
    return Password(text=text, source="test")


# ------------------------------------------------------------------------------------------------ keystore


def test_a_keystore_opens_with_its_password_alone() -> None:
    document = seal(ONE, "correct horse", scrypt_n=QUICK)
    assert unseal(document, "correct horse").address == ONE_ADDRESS
    assert ONE.hex() not in document.decode()
    with pytest.raises(WrongPassword):
        unseal(document, "wrong horse")


def test_the_published_vector_of_the_format_opens() -> None:
    """https://ethereum.org/en/developers/docs/data-structures-and-encoding/web3-secret-storage/#pbkdf2-sha-256"""
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
def test_what_is_no_keystore_is_refused(document: bytes) -> None:
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


def test_signatures_are_those_of_the_vector_and_the_key_shows_nowhere() -> None:
    wallet = wallet_of(ONE)
    text = '{"agent":"0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf","processed_tokens":600,"timestamp":1770000000}'
    assert wallet.sign_text(text).hex() == (
        "b34834d1c90f00d82a0ed0df1ab75b626a5a4a524547549b3d948d59d106819d5f3c92ff59e78998760bacf5945a33ca2aa048786fd64d6ea41d524f2eb4a46e1b"
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


# ------------------------------------------------------------------------------------------------ files


def test_a_wallet_is_private_and_never_overwritten(home: Path) -> None:
    assert files.create(home, ONE, "a", scrypt_n=QUICK) == ONE_ADDRESS
    path = home / files.WALLET_FILE
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="WALLET_EXISTS"):
        files.create(home, new_key(), "b", scrypt_n=QUICK)
    assert path.read_bytes() == before
    assert files.unlock(home, given("a")).address == ONE_ADDRESS
    with pytest.raises(UserError) as caught:
        files.unlock(home, given("b"))
    assert (caught.value.code, caught.value.exit_code) == ("WALLET_LOCKED", 5)
    path.chmod(0o640)
    with pytest.raises(UserError, match="WALLET_PERMISSIONS"):
        files.unlock(home, given("a"))


def test_the_payout_may_be_a_cold_wallet(home: Path) -> None:
    files.create(home, ONE, "a", scrypt_n=QUICK)
    assert files.wallet_info(home).payout == ONE_ADDRESS
    cold = wallet_of(new_key()).address
    assert files.set_payout(home, cold.lower()) == cold
    info = files.wallet_info(home)
    assert (info.payout, info.payout_is_wallet) == (cold, False)
    assert stat.S_IMODE((home / files.PAYOUT_FILE).stat().st_mode) == 0o600
    for wrong in ("0x" + "0" * 40, "0x12"):
        with pytest.raises(UserError, match="ADDRESS"):
            files.set_payout(home, wrong)
    (home / files.PAYOUT_FILE).write_text("damaged")
    with pytest.raises(UserError, match="PAYOUT"):
        files.wallet_info(home)


def test_a_backup_opens_and_never_overwrites(home: Path, tmp_path: Path) -> None:
    files.create(home, ONE, "a", scrypt_n=QUICK)
    made = files.back_up(home, tmp_path)
    assert made == tmp_path / f"hypergpu-wallet-{ONE_ADDRESS}.json"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert unseal(made.read_bytes(), "a").address == ONE_ADDRESS
    with pytest.raises(UserError, match="BACKUP"):
        files.back_up(home, tmp_path)


# ------------------------------------------------------------------------------------------------ password sources


def _file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_sources_are_asked_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag, variable = (
        _file(tmp_path / "flag", "flag text\n"),
        _file(tmp_path / "variable", "variable text"),
    )
    _file(tmp_path / password.CREDENTIAL, "credential text\r\n", 0o440)
    environ = {password.VARIABLE: str(variable), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    monkeypatch.setattr(password, "_from_keyring", {"me": "keyring text"}.get)
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "typed"

    found = [find_password(flag, environ, "me", prompt=prompt)]
    found.append(find_password(None, environ, "me", prompt=prompt))
    del environ[password.VARIABLE]
    found.append(find_password(None, environ, "me", prompt=prompt))
    found.append(find_password(None, {}, "me", prompt=prompt))
    assert asked == []
    found.append(find_password(None, {}, "another", prompt=prompt))
    assert [one.text for one in found] == [
        "flag text",
        "variable text",
        "credential text",
        "keyring text",
        "typed",
    ]
    assert all(one.text not in repr(one) for one in found)


@pytest.mark.parametrize(
    ("text", "mode"),
    [("good", 0o644), ("good", 0o620), ("", 0o600), ("\nsecond", 0o600), ("x" * 5000, 0o600)],
)
def test_a_password_file_that_others_can_read_or_that_is_empty_is_refused(
    tmp_path: Path, text: str, mode: int
) -> None:
    with pytest.raises(UserError) as caught:
        find_password(_file(tmp_path / "p", text, mode), {}, "")
    assert (caught.value.code, caught.value.exit_code) == ("PASSWORD_FILE", 5)


def test_the_prompt_asks_twice_for_a_new_password() -> None:
    answers = iter(["one", "two"])
    with pytest.raises(UserError, match="passwords differ"):
        find_password(None, {}, "", prompt=lambda _: next(answers), twice=True)
    with pytest.raises(UserError, match="is empty"):
        find_password(None, {}, "", prompt=lambda _: "")


# ------------------------------------------------------------------------------------------------ commands


def test_the_commands_from_import_to_backup(
    home: Path,
    secret_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(files.create, "__kwdefaults__", {"scrypt_n": QUICK})
    monkeypatch.setenv("HYPERGPU_HOME", str(home))
    monkeypatch.setenv(password.VARIABLE, str(secret_file))
    assert run(["wallet", "show"]) == 5
    key = _file(tmp_path / "key", "0x" + ONE.hex() + "\n")
    assert run(["wallet", "import", str(key)]) == 0
    assert run(["wallet", "new"]) == 5
    assert run(["wallet", "show", "--json"]) == 0
    assert run(["wallet", "set-payout", "0x123"]) == 2
    assert run(["wallet", "set-payout", "0x" + "ab" * 20]) == 0
    assert run(["wallet", "backup", str(tmp_path)]) == 0
    assert (
        run(
            [
                "--home",
                str(tmp_path / "other"),
                "wallet",
                "import",
                str(tmp_path / f"hypergpu-wallet-{ONE_ADDRESS}.json"),
            ]
        )
        == 0
    )
    assert run(["--home", str(tmp_path / "third"), "wallet", "new", "--json"]) == 0
    out, err = capfd.readouterr()
    assert ONE_ADDRESS in out
    assert "correct horse" not in out + err
    assert ONE.hex() not in out + err
    assert files.unlock(tmp_path / "other", given()).address == ONE_ADDRESS
    assert json.loads(out.splitlines()[-1])["address"] == files.address_in_home(tmp_path / "third")


def test_a_key_in_argv_is_not_repeated(
    home: Path, secret_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            [
                "--home",
                str(home),
                "wallet",
                "import",
                "0x" + ONE.hex(),
                "--password-file",
                str(secret_file),
            ]
        )
        == 2
    )
    out, err = capfd.readouterr()
    assert ONE.hex() not in out + err


def test_a_key_comes_from_standard_input_too(
    home: Path, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.create, "__kwdefaults__", {"scrypt_n": QUICK})
    arguments = ["--home", str(home), "wallet", "import", "-", "--password-file", str(secret_file)]
    assert CliRunner().invoke(cli, arguments, input=ONE.hex()).exit_code == 0
    assert files.address_in_home(home) == ONE_ADDRESS
    assert os.listdir(home) == [files.WALLET_FILE]


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("file", "the user root owns it"),
        ("directory", "Permission denied"),
        ("own", "chmod 600"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_wallet_of_another_user_is_not_called_damaged(hidden: str, said: str) -> None:
    with TemporaryDirectory() as folder:  # pytest's own are closed to others
        home = Path(folder)
        files.create(home, ONE, "correct horse", scrypt_n=QUICK)
        home.chmod(0o700 if hidden == "directory" else 0o755)
        if hidden == "own":
            os.chown(home / "wallet.json", NOBODY, NOBODY)
            (home / "wallet.json").chmod(0)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(UserError) as caught:
                files.address_in_home(home)
        finally:
            os.seteuid(0)
    assert (caught.value.code, caught.value.exit_code) == ("WALLET_NOT_OURS", 5)
    assert said in str(caught.value)
    assert "backup" not in caught.value.fix


def test_a_wallet_that_is_no_file_is_told(home: Path) -> None:
    (home / "wallet.json").mkdir(parents=True)
    with pytest.raises(UserError, match="WALLET_UNREADABLE") as caught:
        files.address_in_home(home)
    assert caught.value.why == "it is not a file"
