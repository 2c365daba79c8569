"""Defines the worker's inputs: `Job` from the run, `WorkerSettings` from the machine's owner."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.identity import PeerId
from protocol.rules.versions import HELD_OUT_RULES
from protocol.run.manifest import Inner, Manifest


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[worker]` part of a node's configuration.

    A run's manifest comes from a stranger. It can choose one of the shipped tasks. It can import a
    module of this machine only with `allow_custom_task`, and read files only inside `data_folders`:
    a model that is trained on private files carries them to the whole swarm.
    """

    # "auto", "cpu", "cuda", "cuda:1", or several with commas between them.
    device: str = "auto"
    # 0 means one less than the processors that this process may use.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    # The precision of the model's arithmetic. The parameters are always float32.
    # "float16" needs CUDA, and scales the loss.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    # The most samples that the device computes at once. 0 means: as many as its memory allows.
    batch_part: Annotated[int, Meta(ge=0, le=65536)] = 0
    # Compile the model with torch.compile.
    compile: bool = False
    allow_custom_task: bool = False
    data_folders: tuple[str, ...] = ()
    # For the import of torch from a cold disk, and for the task's data: an index over a large data
    # set takes minutes.
    load_timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 600.0
    # The most memory of the worker, on the GPU where it uses one. 0 means no limit.
    memory_gb: Annotated[float, Meta(ge=0)] = 0.0
    # The file by which training and a stage of one node share the device's time; "": alone.
    turn_file: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that the worker needs, and the node that it works for."""

    task: str
    task_options: dict[str, int | float | str | bool]
    seed: int
    inner: Inner
    peer: PeerId
    # Whether some samples are held out of training.
    holds_out: bool = False
    # The samples that this machine's device computes at once; 0 means that it was not found yet.
    batch_part: int = 0


def job_of(manifest: Manifest, peer: PeerId, batch_part: int = 0) -> Job:
    """Return the job of `peer`'s worker in the run. `batch_part` is as in `Job`."""
    return Job(
        task=manifest.task,
        task_options=manifest.task_options,
        seed=manifest.seed,
        inner=manifest.inner,
        peer=peer,
        holds_out=manifest.rules >= HELD_OUT_RULES,
        batch_part=batch_part,
    )


def devices_of(device: str) -> tuple[str, ...]:
    """Return the single devices of the setting `device`."""
    return tuple(part.strip() for part in device.split(","))


def choose_threads(wanted: int) -> int:
    """Return `wanted`; for 0, one less than the processors that this process may use.

    The node needs a processor to answer its peers in time.
    """

    return wanted or max(1, len(os.sched_getaffinity(0)) - 1)
