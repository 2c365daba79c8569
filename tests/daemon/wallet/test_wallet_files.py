"""The wallet's files in a home: private, never overwritten, backed up."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from daemon.wallet import files
from daemon.wallet.keystore import new_key, unseal, wallet_of
from protocol.errors import UserError
from tests.daemon.wallet.wallets import NOBODY, ONE, ONE_ADDRESS, QUICK, given


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


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("file", "the user root owns it"),
        ("directory", "Permission denied"),
        ("own", "chmod 600"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_wallet_of_another_user_is_not_reported_as_damaged(hidden: str, said: str) -> None:
    # pytest's own folders are closed to other users.
    with TemporaryDirectory() as folder:
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


def test_a_wallet_that_is_no_file_is_reported(home: Path) -> None:
    (home / "wallet.json").mkdir(parents=True)
    with pytest.raises(UserError, match="WALLET_UNREADABLE") as caught:
        files.address_in_home(home)
    assert caught.value.why == "it is not a file"
