"""The sources of the wallet's password, in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.wallet import password
from daemon.wallet.password import find_password
from protocol.errors import UserError
from tests.daemon.wallet.wallets import text_file


def test_password_sources_are_tried_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag, variable = (
        text_file(tmp_path / "flag", "flag text\n"),
        text_file(tmp_path / "variable", "variable text"),
    )
    text_file(tmp_path / password.CREDENTIAL, "credential text\r\n", 0o440)
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
        find_password(text_file(tmp_path / "p", text, mode), {}, "")
    assert (caught.value.code, caught.value.exit_code) == ("PASSWORD_FILE", 5)


def test_the_prompt_asks_twice_for_a_new_password() -> None:
    answers = iter(["one", "two"])
    with pytest.raises(UserError, match="passwords differ"):
        find_password(None, {}, "", prompt=lambda _: next(answers), twice=True)
    with pytest.raises(UserError, match="is empty"):
        find_password(None, {}, "", prompt=lambda _: "")
