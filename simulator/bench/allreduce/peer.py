"""One peer of the benchmark: `python -m simulator.bench.allreduce.peer SETTINGS`, settings as JSON.

Ends when its standard input does.
"""

from __future__ import annotations

import importlib
import sys

import msgspec

from simulator.bench.allreduce.driver import CommandPipe, DriverSettings, die_with_parent

ROOMS = {
    "native": "native",
    "certified": "certified",
    "tcp": "tcp",
    "gloo": "gloo",
    "hivemind": "hivemind_peer",
}


def main(argument: str) -> None:
    settings = msgspec.json.decode(argument, type=DriverSettings)
    die_with_parent()
    talk = CommandPipe()
    # By name: hivemind and libp2p cannot be in one process, and each engine's libraries take a
    # second to load.
    importlib.import_module(f"simulator.bench.allreduce.{ROOMS[settings.engine]}").run(
        talk, settings
    )


if __name__ == "__main__":
    main(sys.argv[1])
