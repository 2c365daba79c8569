"""`stop`: ask the daemon to leave, and wait until it is gone."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

import click

from daemon.cli.invocation import global_options, invocation
from daemon.control.client import call
from daemon.home.layout import LOG_FILE
from daemon.home.lock import lock_holder
from protocol.errors import UserError

# A step of training to its end, a checkpoint of a large model, goodbyes.
STOP_TIMEOUT_S = 30.0
# The kernel tells nobody that a lock was released.
POLL_S = 0.05


@click.command()
@global_options(hidden=True)
@click.pass_context
def stop(context: click.Context) -> None:
    """Let the daemon finish its step, write a checkpoint and leave."""
    talk = invocation(context)
    home = talk.home
    holder = lock_holder(home)
    exited = _exit_of(holder)
    call(home, "stop")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while holder is not None and (lock_holder(home) == holder or not exited()):
        if time.monotonic() > deadline:
            raise UserError(
                "NOT_STOPPING",
                f"The daemon on {home} (process {holder}) was told to stop and still runs after {STOP_TIMEOUT_S:g} s.",
                why=f"see the end of {home / LOG_FILE}",
                fix=f"kill {holder}",
            )
        time.sleep(POLL_S)
    talk.result('{"stopped":true}' if talk.as_json else "Stopped.")


def _exit_of(pid: int | None) -> Callable[[], bool]:
    """Tells whether the process of that number now has ended: the lock is released a moment before."""
    try:
        handle = os.pidfd_open(pid) if pid else None
    except OSError:  # it is gone, or another machine's
        handle = None
    return lambda: handle is None or bool(select.select([handle], [], [], 0)[0])
