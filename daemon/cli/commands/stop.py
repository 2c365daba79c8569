"""`stop`: asks the daemon to stop, and waits until its process has ended."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

import click

from daemon.cli.invocation import global_options, invocation_of
from daemon.control.client import call
from daemon.home.layout import LOG_FILE
from daemon.home.lock import lock_holder
from protocol.errors import UserError

# Time to finish a training step and to write the checkpoint of a large model.
STOP_TIMEOUT_S = 30.0
# Linux does not notify when a file lock is released, so the command polls.
POLL_S = 0.05


@click.command()
@global_options(hidden=True)
@click.pass_context
def stop(context: click.Context) -> None:
    """Stop the node after its step and a checkpoint."""
    invocation = invocation_of(context)
    home = invocation.home
    holder = lock_holder(home)
    exited = _exit_of(holder)
    call(home, "stop")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while holder is not None and (lock_holder(home) == holder or not exited()):
        if time.monotonic() > deadline:
            raise UserError(
                "NOT_STOPPING",
                f"The daemon on {home} (process {holder}) still runs {STOP_TIMEOUT_S:g} s after it"
                " was asked to stop.",
                why=f"the end of {home / LOG_FILE} may say",
                fix=f"kill {holder}",
            )
        time.sleep(POLL_S)
    invocation.result('{"stopped":true}' if invocation.as_json else "Stopped.")


def _exit_of(pid: int | None) -> Callable[[], bool]:
    """Return a function that says whether process `pid` has ended.

    The process releases the lock a moment before it ends.
    """
    try:
        handle = os.pidfd_open(pid) if pid else None
    except OSError:
        # The process has ended, or runs on another machine that shares this home.
        handle = None
    return lambda: handle is None or bool(select.select([handle], [], [], 0)[0])
