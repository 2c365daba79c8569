"""Runs many calls of `hypergpud`, each in a fork of a process that has loaded every command.

This takes a hundredth of the time of real starts. It reads a JSON list of cases from stdin, and
writes a JSON list of outcomes to the file that its argument names. A fork cannot show the start and
the end of the interpreter; `test_streams.py` tests those with a few real processes.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from daemon.cli.main import cli, main

LIMIT_S = 30
CLOSED, FULL, LEFT = "closed", "full", "left"


def load_everything() -> None:
    """Import every module that a command imports when it runs."""
    from contracts.devnet import genesis, server  # noqa: F401, PLC0415
    from daemon.chain import client_setup  # noqa: F401, PLC0415
    from daemon.cli import failure  # noqa: F401, PLC0415
    from daemon.cli.chain import devnet_server  # noqa: F401, PLC0415
    from daemon.demo import runner  # noqa: F401, PLC0415
    from daemon.diagnosis import bug_report, report  # noqa: F401, PLC0415
    from daemon.home import owner_order, run_branches  # noqa: F401, PLC0415
    from daemon.node import api_node, app, stage_node  # noqa: F401, PLC0415
    from daemon.results import evaluate, export, run_fork  # noqa: F401, PLC0415
    from simulator.playback import output  # noqa: F401, PLC0415

    context = click.Context(cli)
    for name in cli.list_commands(context):
        cli.get_command(context, name)
    # A collection in a fork would copy every page of the modules.
    gc.collect()
    gc.freeze()


def set_up(case: dict[str, Any], standard: dict[int, int]) -> None:
    """Set up this process for a case. `standard` has a file for each stream."""
    os.environ.clear()
    os.environ.update(case["environ"])
    os.chdir(case["directory"])
    if case.get("gone"):
        os.rmdir(case["directory"])
    streams = {"0": CLOSED, **case.get("streams", {})}
    for number, handle in standard.items():
        state = streams.get(str(number), "")
        if state == CLOSED:
            os.close(number)
        elif state == FULL:
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        elif state == LEFT:
            read_end, write_end = os.pipe()
            os.close(read_end)
            os.dup2(write_end, number)
        else:
            os.dup2(handle, number)
    # The interpreter creates these objects at its start.
    stdin = None if streams["0"] == CLOSED else open(0, closefd=False)  # noqa: SIM115
    sys.stdin = stdin  # type: ignore[assignment]
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = None
        if streams.get(str(number)) != CLOSED:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    sys.argv = ["hypergpud", *case["arguments"]]
    sys.orig_argv = [sys.executable, "-m", "daemon.cli.main", *case["arguments"]]


def play(case: dict[str, Any]) -> dict[str, Any]:
    """Run one call in a fork."""
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile() as nothing,
    ):
        child = os.fork()
        if child == 0:
            code = 99
            try:
                import signal  # noqa: PLC0415

                signal.alarm(LIMIT_S)
                set_up(case, {0: nothing.fileno(), 1: out.fileno(), 2: err.fileno()})
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 98
            # The test reads the traceback.
            except BaseException:  # noqa: BLE001
                os.write(err.fileno(), traceback.format_exc().encode())
            os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read().decode("utf-8", "backslashreplace"),
            "err": err.read().decode("utf-8", "backslashreplace"),
        }


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    load_everything()
    Path(sys.argv[1]).write_text(json.dumps([play(case) for case in cases]), encoding="utf-8")
