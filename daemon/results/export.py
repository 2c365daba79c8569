"""Exports a run's model as safetensors, as a file of torch, or as a folder of transformers.

See https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.disk.atomic import write_atomically
from daemon.disk.tensors import encode
from daemon.results.opened_model import OpenedModel
from daemon.results.run_model import RunModel
from daemon.system.offload import in_thread
from protocol.errors import UserError
from protocol.ports.disk import DiskFull

# The one tensor of a file whose checkpoint does not know the model's names and shapes.
FLAT = "parameters"


def export_safetensors(model: RunModel, file: Path, *, force: bool) -> None:
    """Write the trained tensors to `file`. The task's code is not needed and does not run.

    Raises:
        UserError: "EXISTS" where `file` exists and `force` is false, "EXPORT" where `file` cannot
            be written.
    """
    check_target(file, force=force)
    manifest = model.signed.open()
    metadata = {
        "format": "hypergpu/model/1",
        "run": model.signed.run.hex(),
        "name": manifest.name,
        "task": manifest.task,
        "task_options": msgspec.json.encode(manifest.task_options).decode(),
        "rules": str(manifest.rules),
        "round": str(model.number),
        "certificate": model.tip.hex(),
    }
    _write(file, encode(_tensors(model), metadata), force=force)


async def export_by_task(
    opened: OpenedModel, target: Path, *, form: Literal["torch", "hf"], adapter: bool, force: bool
) -> None:
    """Let the task write the model: a file of `torch.save`, or a folder of `save_pretrained`.

    Files of an earlier export in the folder are replaced, and other files stay.

    Raises:
        UserError: as `export_safetensors`, and "EXPORT" where the task has no such form.
    """
    check_target(target, force=force, is_folder=form == "hf")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
            files = await opened.trainer.export(
                opened.model.parameters, Path(draft), form=form, adapter=adapter
            )
            await in_thread(lambda: _move(Path(draft), files, target, is_folder=form == "hf"))
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from None


def _move(draft: Path, files: tuple[str, ...], target: Path, *, is_folder: bool) -> None:
    if is_folder:
        target.mkdir(exist_ok=True)
    for name in files:
        (draft / name).replace(target / name if is_folder else target)


def check_target(target: Path, *, force: bool, is_folder: bool = False) -> None:
    """Raise `UserError` for a target that cannot be written. Call this before long work."""
    if not force and os.path.lexists(target):
        raise _exists(target)
    if not target.exists():
        return
    if is_folder and not target.is_dir():
        why = "it is not a folder, and this format writes one"
    elif not is_folder and not target.is_file():
        why = "it is a directory or a device, and an export writes a regular file"
    else:
        return
    raise UserError("EXPORT", f"Cannot write {target}.", why=why, fix="name a file", exit_code=2)


def _tensors(model: RunModel) -> Mapping[str, npt.NDArray[np.generic]]:
    """Return the tensors by name; one flat vector where the names are not known."""
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    start = 0
    for name, shape in model.shapes:
        size = int(np.prod(shape, dtype=np.int64))
        tensors[name] = model.parameters[start : start + size].reshape(shape)
        start += size
    fits = len(tensors) == len(model.shapes) > 0 and start == model.parameters.size
    return tensors if fits else {FLAT: model.parameters}


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
        raise _unwritable(file, why) from None
    finally:
        # Also after Ctrl-C: the empty file would block the next export.
        if reserved:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _unwritable(target: Path, why: str) -> UserError:
    return UserError(
        "EXPORT",
        f"Cannot write {target}.",
        why=why,
        fix="name a file in a folder that you can write to",
    )


def _exists(file: Path) -> UserError:
    return UserError(
        "EXISTS",
        f"{file} exists already.",
        why="an export does not overwrite a file",
        fix="name another file, or add --force",
        exit_code=2,
    )
