"""How many files and sockets this process may hold open at once."""

from __future__ import annotations

import logging
import resource

# What strangers and members may hold together (docs/internals/limits.md) is about
# a thousand sockets, and 1,024 is the limit of most shells. Eight times that leaves room.
MOST_OPEN_FILES = 8192

_log = logging.getLogger(__name__)


def allow_open_files() -> None:
    """Raise this process's own limit as far as the system lets every user, up to `MOST_OPEN_FILES`.

    At the limit no file of the home can be read or written, whoever holds the sockets.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MOST_OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        _log.warning("the limit of %d open files stays: %s", soft, error)
