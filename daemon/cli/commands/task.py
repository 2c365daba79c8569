"""`task check`: tries a task on this machine before anyone trains it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import PATH
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.config.loader import load_config
from protocol.errors import UserError
from protocol.run.manifest import Manifest

# The part that a check tries last.
LAST_PART = "export"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the check's process; `daemon.device.task_check` defines it."""

    part: str
    text: str
    kind: str
    fix: str
    trace: str


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def task() -> None:
    """Check a task before a run."""


@task.command()
@click.argument("name", required=False, metavar="[MODULE:CLASS]")
@click.option("--run", "run_file", type=PATH, metavar="FILE", help="Check the task of a run file.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set an option of the task (repeat).",
)
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
@global_options(hidden=True)
@click.pass_context
def check(
    context: click.Context,
    name: str | None,
    run_file: Path | None,
    options: tuple[str, ...],
    device: str | None,
) -> int:
    """Train two batches of a task, evaluate and export, and print what was found.

    The task is yours (MODULE:CLASS, from the current folder) or a shipped one. It runs as in a
    node, with the settings of `[worker]`. Typing the command allows its code. The exit code is 0
    if the task can be trained in a swarm, 1 if not.
    """
    invocation = invocation_of(context)
    if (name is None) == (run_file is None):
        raise UserError(
            "USAGE",
            "task check takes MODULE:CLASS or --run FILE.",
            fix="hypergpud task check sine:Sine, or hypergpud task check --run sine.toml",
            exit_code=2,
        )
    manifest = _manifest(name, run_file, options)
    flags: dict[str, str | tuple[str, ...]] = {"worker.device": device} if device else {}
    config, _ = load_config(invocation.home, invocation.config, flags, os.environ)
    # numpy takes a while; a mistake in the options does not wait for it.
    from daemon.device.settings import job_of  # noqa: PLC0415
    from daemon.services.training.worker_settings import worker_settings  # noqa: PLC0415

    settings = msgspec.structs.replace(worker_settings(config), allow_custom_task=True)
    request = msgspec.json.encode({"job": job_of(manifest, ""), "settings": settings})
    invocation.say(f"Checking the task {manifest.task}.")
    return _report(invocation, request)


def _report(invocation: Invocation, request: bytes) -> int:
    """Run the check in a process of its own, and print its findings as they come."""
    found: list[Finding] = []
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "daemon.device.task_check"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.close()
        for line in process.stdout:
            finding = msgspec.json.decode(line, type=Finding)
            found.append(finding)
            if not invocation.as_json:
                invocation.result(_line(finding))
    faults = [finding for finding in found if finding.kind == "fault"]
    # A task that ends its process, as by os._exit(0), leaves the last part out.
    if not faults and (process.returncode or not found or found[-1].part != LAST_PART):
        ended = (
            f"The check's process ended with status {process.returncode} before it had tried the"
            " whole task."
        )
        faults.append(Finding(part="fault", text=ended, kind="fault", fix="", trace=""))
        found += faults
        if not invocation.as_json:
            invocation.result(_line(faults[0]))
    if invocation.as_json:
        invocation.result(msgspec.json.encode(found).decode())
    elif not faults:
        invocation.result("The task can be trained in a swarm.")
    return 1 if faults else 0


def _line(finding: Finding) -> str:
    trace = f"{finding.trace}\n" if finding.trace else ""
    marks = {"note": "note: ", "fault": ""}
    fix = f"\n  {'':9} fix: {finding.fix}" if finding.fix else ""
    return f"{trace}  {finding.part:9} {marks.get(finding.kind, '')}{finding.text}{fix}"


def _manifest(name: str | None, run_file: Path | None, options: tuple[str, ...]) -> Manifest:
    # A late import, as in `check`.
    from protocol.run.manifest_file import load_manifest  # noqa: PLC0415

    base = load_manifest(run_file) if run_file else Manifest(name="check", task=name or "")
    given = dict(_option(text) for text in options)
    return msgspec.structs.replace(base, task_options={**base.task_options, **given})


def _option(text: str) -> tuple[str, int | float | str | bool]:
    """Return an option and its value: JSON where it is a number or a truth value, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UserError(
            "USAGE",
            f"{text!r} is not an option of a task.",
            why="it is written KEY=VALUE",
            fix="--option width=64",
            exit_code=2,
        )
    try:
        return key, msgspec.json.decode(value, type=int | float | bool)
    except msgspec.DecodeError:
        return key, value
