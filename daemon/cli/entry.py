"""The console script.

It imports nothing of its own before Ctrl-C is heard: the command line's libraries take as long as a
short command.
"""

from __future__ import annotations

import os

# What a shell reports of a program that SIGINT ended.
INTERRUPTED = 130


def main() -> None:
    """`hypergpud`."""
    try:
        from daemon.cli import main as commands  # noqa: PLC0415  # see above

        commands.main()
    except KeyboardInterrupt:
        # In an import or between two steps: nothing has begun that must be ended in order.
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
