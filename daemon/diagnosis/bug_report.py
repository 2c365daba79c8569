"""What a bug report holds: findings, settings, versions, status, and the end of log and journal.

Every text is redacted. Keys, wallets and models are never read.
"""

from __future__ import annotations

import getpass
import io
import os
import platform
import socket
import tarfile
from collections import deque
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import msgspec

from daemon.config.settings import SECRETS
from daemon.control.client import call
from daemon.diagnosis.finding import Diagnosis
from daemon.diagnosis.redaction import SECRET, Redaction
from daemon.home.layout import CONFIG_FILE, JOURNAL_FILE, LOG_FILE
from daemon.version import version
from protocol.errors import UserError

LOG_LINES, JOURNAL_LINES = 5000, 5000
"""The last lines of both: some hours. The report stays below a few MB, as trackers want it."""


def bug_report(home: Path, diagnosis: Diagnosis) -> dict[str, str]:
    """Return the redacted text of each file of a report, by name. May take seconds."""
    redaction = Redaction(home, _names())
    texts = {
        "doctor.json": msgspec.json.format(msgspec.json.encode(diagnosis)).decode(),
        "system.txt": _system(),
        "config.toml": _settings(home / CONFIG_FILE),
        "environment.txt": _environment(os.environ),
        "status.json": _status(home),
        "hypergpud.log": _last_lines(home / LOG_FILE, LOG_LINES),
        "journal.jsonl": _last_lines(home / JOURNAL_FILE, JOURNAL_LINES),
    }
    return {name: redaction.redacted(text) for name, text in texts.items()}


def packed(texts: Mapping[str, str], folder: str) -> bytes:
    """Pack texts into a tar.gz archive, in a folder of that name."""
    packed_bytes = io.BytesIO()
    with tarfile.open(fileobj=packed_bytes, mode="w:gz") as archive:
        for name, text in texts.items():
            data = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed_bytes.getvalue()


def _names() -> tuple[str, ...]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    # Every machine's root has the same name.
    return (socket.gethostname(), "" if user == "root" else user)


def _system() -> str:
    packages = sorted(f"{one.name}=={one.version}" for one in distributions() if one.name)
    return "\n".join(
        [
            f"hypergpu {version()}",
            f"python {platform.python_version()}",
            f"system {platform.platform()}",
            f"processors {os.cpu_count()}",
            "",
            *packages,
        ]
    )


def _settings(path: Path) -> str:
    """Return the config file without the values of secret settings and without comments."""
    secret = {name.partition(".")[2] for name in SECRETS}
    lines = []
    for line in _last_lines(path, 10_000).splitlines():
        name = line.partition("=")[0].strip()
        if name.startswith("#"):
            continue
        lines.append(f"{name} = {SECRET}" if name in secret else line)
    return "\n".join(lines)


def _environment(environ: Mapping[str, str]) -> str:
    """Return our variables; the values of secret ones are left out."""
    secret = {f"HYPERGPU_{name.replace('.', '_')}".upper() for name in SECRETS}
    return "\n".join(
        f"{name}={SECRET if name in secret or 'PASSWORD' in name else value}"
        for name, value in sorted(environ.items())
        if name.startswith("HYPERGPU_") or name == "CUDA_VISIBLE_DEVICES"
    )


def _status(home: Path) -> str:
    try:
        return msgspec.json.format(call(home, "status")).decode()
    except UserError as error:
        return error.what


def _last_lines(path: Path, count: int) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, maxlen=count))
    except OSError as error:
        return f"{path.name}: {error.strerror or error}"
