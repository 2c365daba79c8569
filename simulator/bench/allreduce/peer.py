"""One peer of the benchmark, which ends when its standard input does.

Usage: `python -m simulator.bench.allreduce.peer SETTINGS`, with settings as JSON.
"""

from __future__ import annotations

import importlib
import sys

import msgspec

from simulator.bench.allreduce.driver import CommandPipe, DriverSettings, die_with_parent

MODULES = {
    "native": "native",
    "certified": "certified",
    "tcp": "tcp",
    "gloo": "gloo",
    "hivemind": "hivemind_peer",
}


def main(argument: str) -> None:
    settings = msgspec.json.decode(argument, type=DriverSettings)
    die_with_parent()
    pipe = CommandPipe()
    # Imported by name: hivemind and libp2p cannot be in one process, and each engine's libraries
    # take a second to load.
    importlib.import_module(f"simulator.bench.allreduce.{MODULES[settings.engine]}").run(
        pipe, settings
    )


if __name__ == "__main__":
    main(sys.argv[1])
