"""Prepares a run that begins from weights: `hypergpud start --from FILE|RUN@CERTIFICATE`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daemon.config.settings import Config
from daemon.disk.initial_file import InitialFile
from daemon.disk.tensors import DamagedFile, read_foreign
from daemon.home.recent_state import named_run
from daemon.results.export import FLAT
from daemon.results.opened_model import worker_for
from daemon.results.run_model import RunModel, model_of_home
from protocol.averaging.vector_layout import Vector
from protocol.errors import UserError
from protocol.ports.disk import DiskFull
from protocol.ports.trainer import ParameterSpec
from protocol.run.initial_state import begin_from, check_beginning
from protocol.run.manifest import Manifest, SignedManifest
from protocol.text.nearest import nearest

# The beginning of a run's id, then a certificate's number or the beginning of its hash. Without
# one, the newest model.
RUN_AT = re.compile(r"([0-9a-fA-F]{4,64})@([0-9a-fA-F]*)")

Say = Callable[[str], None]
Seal = Callable[[Manifest], SignedManifest]


async def begin_from_weights(
    config: Config, manifest: Manifest, source: str, seal: Seal, say: Say
) -> SignedManifest:
    """Return the manifest of the run that begins with the weights of `source`.

    Starts a worker, which knows the order of the task's tensors. The weights are in the home on
    return.

    Args:
        config: the settings of this node.
        manifest: the run's file.
        source: a safetensors file, or RUN@CERTIFICATE of this home.
        seal: signs the manifest where it names this node as the owner.
        say: prints a message.

    Raises:
        UserError: "FROM" for weights that do not fit the task, and what `begin_from` and loading a
            task raise; "DISK_FULL" where the home cannot be written.
    """
    tensors = _tensors(config.home, source, say)
    # A run that cannot begin from weights says so before the worker loads.
    check_beginning(manifest)
    async with worker_for(seal(manifest), config) as (_, info):
        parameters = flat_vector(info.specs, tensors, source)
    signed = seal(begin_from(manifest, parameters))
    try:
        InitialFile(config.home, signed.run).save(parameters)
    except DiskFull as full:
        raise UserError(
            "DISK_FULL",
            "The run's weights cannot be written.",
            why=str(full),
            fix="free some space there, or name another directory with --home PATH",
        ) from None
    say(f"This run begins with the weights of {source} (initial = {signed.open().initial[:12]}).")
    return signed


def _tensors(home: Path, source: str, say: Say) -> Mapping[str, Any]:
    file = Path(source).expanduser()
    named = RUN_AT.fullmatch(source)
    if named and not file.exists():
        signed = named_run(home, named[1])
        return _named(model_of_home(home, signed, named[2] or None, say))
    try:
        return read_foreign(file)
    except (DamagedFile, OSError) as error:
        raise UserError(
            "FROM",
            f"The weights {source} {error}.",
            why="--from takes a safetensors file, or RUN@CERTIFICATE of this home",
            fix="hypergpud export model.safetensors   (writes such a file)",
            exit_code=2,
        ) from None


def _named(model: RunModel) -> dict[str, Any]:
    if not model.shapes:
        return {FLAT: model.parameters}
    tensors: dict[str, Any] = {}
    start = 0
    for name, shape in model.shapes:
        stop = start + int(np.prod(shape, dtype=np.int64))
        tensors[name] = model.parameters[start:stop].reshape(shape)
        start = stop
    return tensors


def flat_vector(specs: Sequence[ParameterSpec], tensors: Mapping[str, Any], source: str) -> Vector:
    """Return the tensors as one float32 vector in the order of the task, shape (parameters,).

    Raises `UserError("FROM")` for a tensor that is missing, of another shape, or not finite.
    """
    parts: list[Vector] = []
    if set(tensors) == {FLAT} and tensors[FLAT].ndim == 1:
        parts = [tensors[FLAT].astype(np.float32)]
        wanted = sum(int(np.prod(spec.shape, dtype=np.int64)) for spec in specs)
        if parts[0].size != wanted:
            raise _unfit(source, f"it has {parts[0].size:,} values, the task {wanted:,}")
    else:
        for spec in specs:
            found = tensors.get(spec.name)
            if found is None:
                meant = nearest(spec.name, tensors)
                hint = f" (is {meant!r} meant?)" if meant else ""
                raise _unfit(source, f"it has no tensor {spec.name!r}{hint}")
            if tuple(found.shape) != spec.shape:
                raise _unfit(
                    source, f"{spec.name!r} has the shape {found.shape}, the task {spec.shape}"
                )
            parts.append(found.astype(np.float32).ravel())
    vector = np.concatenate(parts)
    if not bool(np.isfinite(vector).all()):
        raise _unfit(source, "some of its values are not finite")
    return vector


def _unfit(source: str, why: str) -> UserError:
    return UserError(
        "FROM",
        f"The weights {source} do not fit the run's task.",
        why=why,
        fix="use the task and the options with which they were trained",
        exit_code=2,
    )
