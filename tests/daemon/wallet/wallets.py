"""A key, its address and a password that all wallet tests use."""

from __future__ import annotations

from pathlib import Path

from daemon.wallet.password import Password

# A quick work factor of scrypt, for tests that do not measure its cost.
QUICK = 1 << 8
# A user that owns no files.
NOBODY = 65534
ONE = (1).to_bytes(32, "big")
ONE_ADDRESS = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


def given(text: str = "correct horse") -> Password:
    return Password(text=text, source="test")


def text_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path
