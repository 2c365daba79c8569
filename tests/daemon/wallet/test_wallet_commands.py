"""The wallet's commands from import to backup."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli.main import cli, run
from daemon.wallet import files, password
from tests.daemon.wallet.wallets import ONE, ONE_ADDRESS, QUICK, given, text_file


def test_wallet_commands_from_import_to_backup(
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
    key = text_file(tmp_path / "key", "0x" + ONE.hex() + "\n")
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


def test_a_key_is_read_from_standard_input(
    home: Path, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.create, "__kwdefaults__", {"scrypt_n": QUICK})
    arguments = ["--home", str(home), "wallet", "import", "-", "--password-file", str(secret_file)]
    assert CliRunner().invoke(cli, arguments, input=ONE.hex()).exit_code == 0
    assert files.address_in_home(home) == ONE_ADDRESS
    assert os.listdir(home) == [files.WALLET_FILE]
