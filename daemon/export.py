"""Exports a run's model as a safetensors file (https://huggingface.co/docs/safetensors)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daemon.chain.home_runs import run_folder
from daemon.disk.atomic import write_atomically
from daemon.disk.checkpoint_file import checkpoints_in, read_checkpoint
from daemon.disk.run_folder import CHECKPOINTS
from daemon.disk.tensors import DamagedFile, encode
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.ports.disk import DiskFull
from protocol.ports.disk_records import Checkpoint
from protocol.run.manifest import SignedManifest

# The one tensor of a file whose checkpoint does not know the model's names and shapes.
FLAT = "parameters"


def export_run(
    home: Path, signed: SignedManifest, file: Path, *, force: bool, say: Callable[[str], None]
) -> Checkpoint:
    """Write the parameters of the newest whole checkpoint to `file`. Returns that checkpoint.

    Reads the home and changes nothing there. `say` gets a sentence for each damaged checkpoint.

    Raises:
        UserError: "NO_CHECKPOINT" where no checkpoint can be read, "EXISTS" where `file` exists
            and `force` is false, "EXPORT" where `file` cannot be written.
    """
    if not force and os.path.lexists(file):
        raise _exists(file)
    if file.exists() and not file.is_file():
        raise UserError(
            "EXPORT",
            f"Cannot write {file}.",
            why="it is a directory or a device, and an export writes a regular file",
            fix="name a file",
            exit_code=2,
        )
    checkpoint = newest_checkpoint(home, signed, say)
    manifest = signed.open()
    metadata = {
        "format": "hypergpu/model/1",
        "run": signed.run.hex(),
        "name": manifest.name,
        "task": manifest.task,
        "rules": str(manifest.rules),
        "round": str(checkpoint.number),
        "certificate": checkpoint.tip.hex(),
    }
    _write(file, encode(_tensors(checkpoint), metadata), force=force)
    return checkpoint


def newest_checkpoint(home: Path, signed: SignedManifest, say: Callable[[str], None]) -> Checkpoint:
    """Return the newest whole checkpoint of a run. `say` gets a sentence for each damaged one.

    Raises:
        UserError: "NO_CHECKPOINT" where no checkpoint can be read.
    """
    folder = run_folder(home, signed.run) / CHECKPOINTS
    reasons: list[str] = []
    try:
        for entry in reversed(checkpoints_in(folder)):
            try:
                checkpoint = read_checkpoint(entry.path, signed.run, entry.tip, entry.number)
            except FileNotFoundError:
                # A running daemon removed it, so a newer one exists.
                continue
            except DamagedFile as error:
                reasons.append(f"Checkpoint {entry.number} {error}: {entry.path}")
                continue
            for reason in reasons:
                say(f"{reason}. Number {checkpoint.number} is used instead.")
            return checkpoint
    except OSError as error:
        reasons.append(f"{folder} cannot be read ({error.strerror})")
    shown = signed.run.hex()[:SHOWN_DIGITS]
    raise UserError(
        "NO_CHECKPOINT",
        f"The run {signed.open().name} ({shown}) has no checkpoint.",
        why="; ".join(reasons) or f"{folder} holds none",
        fix=""
        if reasons
        else f"hypergpud start --run {shown}   (the first certified round writes one)",
    )


def _tensors(checkpoint: Checkpoint) -> Mapping[str, npt.NDArray[np.generic]]:
    """Return the tensors by name; one flat vector where the checkpoint has no names."""
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    start = 0
    for name, shape in checkpoint.shapes:
        size = int(np.prod(shape, dtype=np.int64))
        tensors[name] = checkpoint.anchor[start : start + size].reshape(shape)
        start += size
    fits = len(tensors) == len(checkpoint.shapes) > 0 and start == checkpoint.anchor.size
    return tensors if fits else {FLAT: checkpoint.anchor}


def _write(file: Path, parts: list[memoryview], *, force: bool) -> None:
    """Write the whole file or none. Without `force`, never replaces an existing file."""
    reserved = False
    try:
        if not force:
            # Reserve the name.
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            reserved = True
        write_atomically(file, parts)
        reserved = False
    except FileExistsError:
        raise _exists(file) from None
    except (DiskFull, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            "EXPORT",
            f"Cannot write {file}.",
            why=why,
            fix="name a file in a folder that you can write to",
        ) from None
    finally:
        # Also after Ctrl-C: the empty file would block the next export.
        if reserved:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _exists(file: Path) -> UserError:
    return UserError(
        "EXISTS",
        f"{file} exists already.",
        why="an export does not overwrite a file",
        fix="name another file, or add --force",
        exit_code=2,
    )
