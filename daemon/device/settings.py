"""What the worker is told: by the run (`Job`) and by the owner of its machine (`WorkerSettings`)."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.identity import PeerId
from protocol.run.manifest import Inner, Manifest


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[worker]` part of a node's configuration.

    A run's manifest comes from a stranger. It may choose among the shipped tasks; it may import a
    module of this machine only with `allow_custom_task`, and read files only inside `data_folders`:
    a model trained on private files carries them to the whole swarm.
    """

    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"
    # 0: one less than the processors this process may use.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    # Of the model's arithmetic; parameters are float32 always.
    precision: Literal["float32", "bfloat16"] = "float32"
    allow_custom_task: bool = False
    data_folders: tuple[str, ...] = ()
    # For torch from a cold disk and the task's own data: an index over a large data set takes
    # minutes.
    load_timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 600.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that the worker needs, and whose work it does."""

    task: str
    task_options: dict[str, int | float | str | bool]
    seed: int
    inner: Inner
    peer: PeerId


def job_of(manifest: Manifest, peer: PeerId) -> Job:
    """What `peer`'s worker has to do for the run."""
    return Job(
        task=manifest.task,
        task_options=manifest.task_options,
        seed=manifest.seed,
        inner=manifest.inner,
        peer=peer,
    )


def choose_threads(wanted: int) -> int:
    """`wanted`, or for 0 one less than the processors this process may use: the node beside the
    worker has to answer its peers in time.
    """
    return wanted or max(1, len(os.sched_getaffinity(0)) - 1)
