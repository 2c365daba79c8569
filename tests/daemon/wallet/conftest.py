"""Fixtures of the wallet's tests: a home, and a password file."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("correct horse\nnot this line\n")
    path.chmod(0o600)
    return path
