"""Raises this process's limit of open files and sockets."""

from __future__ import annotations

import logging
import resource

# What strangers and members may hold together (docs/internals/limits.md) is about
# a thousand sockets, and 1,024 is the limit of most shells. Eight times that leaves room.
MOST_OPEN_FILES = 8192

_log = logging.getLogger(__name__)


def allow_open_files() -> None:
    """Raise the soft limit up to the hard limit, and to `MOST_OPEN_FILES` at most.

    A process at its limit can neither read nor write the files of its home.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MOST_OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        _log.warning("The limit of %d open files cannot be raised: %s", soft, error)
