"""Tries a task as a worker would: two steps, an evaluation, samples and an export. Worker only.

    python -P -m daemon.device.task_check < REQUEST

The request is JSON on stdin. Each finding is a line of JSON on the first stdout. What the task
prints goes to stderr.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec
import torch

from daemon.device import shared_memory
from daemon.device.loops.results import TORCH_FILE, ResultFault
from daemon.device.loops.scorer import ScoringFault
from daemon.device.loops.training import TrainingLoop
from daemon.device.messages import ExportModel, SampleModel
from daemon.device.model.author_code import AuthorFault, MemoryShort, SampleFault, place_of
from daemon.device.processor import Device
from daemon.device.settings import Job, WorkerSettings
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.description import is_private, seed_everything
from daemon.device.tasks.task import Task
from protocol.errors import UserError
from protocol.generation.sampler import SamplingRules
from protocol.ports.trainer import HeldOutShare, Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.status.figures import quantity

STEPS = 2
# The samples that are scored: enough to run every line of evaluate().
SCORED = 64
# The names that a finding lists.
SHOWN = 4


class CheckRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A task to check, and the settings of the machine."""

    job: Job
    settings: WorkerSettings


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of the check found.

    `text` is a line for people. A `fault` ends the check, a `note` is worth a look.
    """

    part: str
    text: str
    kind: str = "ok"  # "ok", "note" or "fault"
    fix: str = ""
    trace: str = ""


Report = Callable[[Finding], None]


def check_task(request: CheckRequest, device: Device, report: Report) -> bool:
    """Report what each part of the task does. Returns whether it can be trained in a swarm."""
    try:
        _check(request, device, report)
    except UserError as error:
        report(_refused(error))
    except (AuthorFault, MemoryShort, ScoringFault, ResultFault) as fault:
        fix = getattr(fault, "fix", "")
        report(
            Finding(part="fault", text=f"{fault.what}.", kind="fault", fix=fix, trace=fault.trace)
        )
    else:
        return True
    return False


def _check(request: CheckRequest, device: Device, report: Report) -> None:
    job = request.job
    seed_everything(job.seed)
    task = load_task(job.task, job.task_options, request.settings)
    loop = TrainingLoop(task, device, job)
    memory = shared_memory.create()
    shared_memory.give_size(memory, loop.parameters, loop.inner_size)
    buffers = shared_memory.SharedMemory(memory, loop.parameters, loop.inner_size)
    os.close(memory)
    loop.share(buffers)
    _describe(task, loop, report)
    given = buffers.anchor.copy()
    buffers.anchor[:] = initial_parameters(loop.specs, job.seed, given)
    loop.train(Lane(base=0, index=0, stride=1), None)
    for number in range(1, STEPS + 1):
        began_s = monotonic()
        try:
            loop.step()
        except SampleFault as fault:
            raise _step_fault(task, loop, fault) from fault
        loss = loop.progress().loss
        if loss is None or not math.isfinite(loss):
            raise ResultFault(f"The loss of step {number} is {loss} ({place_of(task.loss)})")
        took = monotonic() - began_s
        report(
            Finding(
                part=f"step {number}",
                text=f"loss {loss:.4f}, {job.inner.batch_size} samples forward and backward in"
                f" {took:.2f} s ({place_of(task.loss)})",
            )
        )
    if still := [
        name for name, parameter, _ in loop.moved if parameter.grad is None or not _moved(parameter)
    ]:
        names = ", ".join(still[:SHOWN]) + (" ..." if len(still) > SHOWN else "")
        report(
            Finding(
                part="gradient",
                text=f"{quantity(len(still), 'parameter')} got no gradient: {names}",
                kind="note",
                fix="check that loss() uses them, or set requires_grad = False",
            )
        )
    loop.pause()
    buffers.scored[:] = buffers.anchor - buffers.delta
    _evaluate(task, loop, report)
    _use(task, loop, report)


def _refused(error: UserError) -> Finding:
    """Return the finding for a task that is refused before its first step."""
    text = f"{error.what.rstrip('.')}: {error.why}" if error.why else error.what
    return Finding(part="fault", text=text, kind="fault", fix=error.fix)


def _step_fault(task: Task, loop: TrainingLoop, fault: SampleFault) -> SampleFault:
    """Return the fault of a step with its place and its samples."""
    # An exception of the task has its place already.
    place = "" if fault.trace else f" ({place_of(task.loss)})"
    where = f", with {loop.bad.last.where}" if loop.bad.last is not None else ""
    return SampleFault(f"{fault.what}{place}{where}", fix=fault.fix, trace=fault.trace)


def _moved(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _describe(task: Task, loop: TrainingLoop, report: Report) -> None:
    digest = loop.describe()
    report(
        Finding(
            part="model",
            text=f"{len(loop.specs)} trained tensors with {loop.parameters:,} values,"
            f" {len(digest.frozen)} frozen, {len(digest.buffers)} buffers ({place_of(task.model)})",
        )
    )
    split = loop.split
    report(
        Finding(
            part="data",
            text=f"{split.total:,} samples, the last {split.held_out:,} held out"
            f"{', other ones on each node' if is_private(task) else ''} ({place_of(task.batch)})",
        )
    )
    if not digest.sample and not is_private(task):
        report(
            Finding(
                part="data",
                text="batch() gives other tensors at each call, or values that are not numbers, so"
                " members cannot compare their data",
                kind="note",
                fix="make batch() give the same finite tensors for the same indices",
            )
        )
    report(Finding(part="digest", text=f"members compare it as {digest.name.hex()[:16]}"))


def _evaluate(task: Task, loop: TrainingLoop, report: Report) -> None:
    if not loop.split.held_out:
        report(
            Finding(
                part="evaluate",
                text="no samples are held out, so the model is never scored",
                kind="note",
                fix="return a number above 0 from held_out_size()",
            )
        )
        return
    shares = max(1, loop.split.held_out // SCORED)
    scored = loop.evaluate(HeldOutShare(index=0, count=shares))
    more = "".join(f", {name} {value:.4g}" for name, value in scored.metrics)
    report(
        Finding(
            part="evaluate",
            text=f"loss {scored.loss:.4f}{more} on {scored.samples} samples"
            f" ({place_of(task.evaluate)})",
        )
    )


def _use(task: Task, loop: TrainingLoop, report: Report) -> None:
    rules = SamplingRules()
    said = loop.sample(SampleModel(id=0, prompt="", count=1, tokens=4, rules=rules))
    report(Finding(part="sample", text=repr(said[0])[:100] if said else "none"))
    with tempfile.TemporaryDirectory(prefix="hypergpu-check-") as folder:
        loop.export(ExportModel(id=0, folder=folder, form="torch", adapter=False))
        file = Path(folder) / TORCH_FILE
        state = torch.load(file, weights_only=True)
        report(
            Finding(
                part="export",
                text=f"{len(state)} tensors, {file.stat().st_size / 1e6:.1f} MB; torch loads them"
                " again",
            )
        )


def main() -> None:
    # The findings go to the first stdout. What the task prints goes to stderr.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=CheckRequest)

    def report(finding: Finding) -> None:
        out.write(msgspec.json.encode(finding) + b"\n")
        out.flush()

    try:
        device = Device(request.settings)
    except UserError as error:
        report(_refused(error))
        code = 1
    else:
        device.claim()
        code = 0 if check_task(request, device, report) else 1
    sys.stdout.flush()
    # End at once, whatever threads the task has started.
    os._exit(code)


if __name__ == "__main__":
    main()
