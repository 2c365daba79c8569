"""One peer of the benchmark, which ends when its standard input does.

Usage: `python -m simulator.bench.training.peer SETTINGS`, with settings as JSON.
"""

from __future__ import annotations

import importlib
import sys

import msgspec

from simulator.bench.allreduce.driver import die_with_parent
from simulator.bench.training.peer_settings import PeerPipe, TrainingPeer

MODULES = {
    "native": "native_peer",
    "hivemind-a": "hivemind_peer",
    "hivemind-b": "hivemind_peer",
    "gloo": "torch_peer",
    "alone": "torch_peer",
}


def main(argument: str) -> None:
    settings = msgspec.json.decode(argument, type=TrainingPeer)
    die_with_parent()
    pipe = PeerPipe()
    # Imported by name: hivemind and libp2p cannot be in one process.
    module = importlib.import_module(f"simulator.bench.training.{MODULES[settings.arm]}")
    module.run(pipe, settings)


if __name__ == "__main__":
    main(sys.argv[1])
