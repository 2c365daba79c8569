"""A node's network in a process of its own: prints a line of JSON whenever its mapping changes.

python mapped_node_main.py FOLDER SEED CONTROL_PORT BULK_PORT [JOIN ...]
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import msgspec
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make


async def main() -> None:
    folder, seed, control, bulk, upnp, *join = sys.argv[1:]
    settings = NetworkSettings(
        listen_port=int(control), bulk_port=int(bulk), upnp=upnp == "1", join=tuple(join)
    )
    node = LibP2PNetwork(
        settings, int(seed).to_bytes(32, "big"), load_or_make(Path(folder) / f"{seed}.pem", "node")
    )
    async with node.running(), trio.open_nursery() as nursery:

        async def tell() -> None:
            said = ""
            while True:
                mapping = node.port_mapping()
                line = json.dumps(
                    {
                        "state": mapping.state,
                        "reason": mapping.reason,
                        "wan": mapping.wan,
                        "protocol": mapping.protocol,
                        "pinholes": node.pinholes().state,
                        "addresses": node.addresses,
                        "hosts": node.endpoint.hosts,
                        "links": len(node.links()),
                    }
                )
                if line != said:
                    said = line
                    print(line, flush=True)
                await trio.sleep(0.1)

        nursery.start_soon(tell)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
            async for number in signals:
                if number == signal.SIGTERM:
                    nursery.cancel_scope.cancel()
                    return
                report = msgspec.json.encode(await node.diagnose()).decode()
                print(f'{{"state": "report", "report": {report}}}', flush=True)


trio.run(main)
