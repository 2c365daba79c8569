"""The console script.

Importing the libraries of the command line takes as long as a short command, so `main` handles
Ctrl-C before it imports them.
"""

from __future__ import annotations

import os

# The exit status that a shell reports for a program that SIGINT ended.
INTERRUPTED = 130


def main() -> None:
    """`hypergpud`."""
    try:
        from daemon.cli import main as commands  # noqa: PLC0415

        commands.main()
    except KeyboardInterrupt:
        # No command has started yet, so nothing needs an orderly end.
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
