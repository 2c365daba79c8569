"""Finds the model that a command serves: a known one, files on this machine, or a run's model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daemon.config.settings import Config
from daemon.device.process.local_model import ModelOnDisk, open_local_model
from daemon.home.layout import user_path
from daemon.home.recent_state import chosen_run
from daemon.models.known_models import KNOWN, fetched_folder
from daemon.results.export import export_safetensors
from daemon.results.run_model import model_of_home
from daemon.services.training.worker_settings import shared_worker_settings
from daemon.system.offload import in_thread
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError

# Models of runs, as files that a stage loads a part of.
FOLDER = "models"
TASK = "byte_gpt"

Say = Callable[[str], None]


async def open_served_model(config: Config, model: str, say: Say) -> ModelOnDisk:
    """Open the model that a person names.

    Args:
        config: the settings in force.
        model: a model of `hypergpud model fetch`, a path (see `open_local_model`), or the beginning
            of a run's id, optionally with the number or hash of a certificate: `RUN@CERTIFICATE`.
        say: prints a message.

    Raises:
        UserError: "MODEL" and "EXTRA" as `open_local_model`; "NO_CHECKPOINT" and "CERTIFICATE" for
            a run whose model this home does not have.
    """
    settings = shared_worker_settings(config)
    if model in KNOWN:
        return await open_local_model(fetched_folder(model), model, settings)
    path = user_path(model, "MODEL")
    if await in_thread(path.exists):
        return await open_local_model(path, path.stem, settings)
    run, _, certificate = model.partition("@")
    name, file = await in_thread(lambda: file_of_run(config.home, run, certificate or None, say))
    return await open_local_model(file, name, settings)


def file_of_run(home: Path, run: str, certificate: str | None, say: Say) -> tuple[str, Path]:
    """Write a run's model to the home, unless it is there. Returns its name and the file."""
    signed = chosen_run(home, run)
    manifest, shown = signed.open(), signed.run.hex()[:SHOWN_DIGITS]
    if manifest.task != TASK:
        raise UserError(
            "MODEL",
            f"The model of the run {manifest.name} cannot be served from its checkpoint.",
            why=f"its task is {manifest.task!r}, and stages know {TASK!r}",
            fix=f"hypergpud export {shown} --format hf FOLDER, then name the folder",
            exit_code=2,
        )
    found = model_of_home(home, signed, certificate, say)
    folder = home / FOLDER
    file = folder / f"{shown}-{found.number}-{found.tip.hex()[:SHOWN_DIGITS]}.safetensors"
    if not file.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        # Without `force`, a crash could leave an empty file under the name.
        export_safetensors(found, file, force=True)
    return f"{manifest.name} at {found.number}", file
