"""A node on a LAN in a process of its own: prints the peers that it is connected to.

    python lan_node_main.py FOLDER SEED RUN

RUN is one letter; the node is in the run of 32 such letters. It joins nobody.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make


async def main() -> None:
    folder, seed, run = sys.argv[1:]
    node = LibP2PNetwork(
        NetworkSettings(mdns=True),
        int(seed).to_bytes(32, "big"),
        load_or_make(Path(folder) / f"{seed}.pem", "node"),
    )
    async with node.running(), trio.open_nursery() as nursery:
        await node.provide(run.encode() * 32)

        async def tell() -> None:
            async for change in node.changes():
                print(change.peer if change.up else "lost", flush=True)

        nursery.start_soon(tell)
        print(f"I am {node.peer}", flush=True)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


trio.run(main)
