"""One real node in a process of its own, for the tests that need many.

Commands arrive on stdin, and each answer is one line of JSON on stdout. `publish TEXT` gossips,
`status` reports connections, messages and CPU time, `find` searches the DHT, `quit` or the end of
stdin ends the process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make

TOPIC = "hypergpu/test"
KEY = bytes(range(32))


async def main(home: Path, seed: int, *join: str) -> None:
    settings = NetworkSettings(listen_host="127.0.0.1", join=join)
    network = LibP2PNetwork(
        settings, seed.to_bytes(32, "big"), load_or_make(home / f"bulk-{seed}.pem", f"node {seed}")
    )
    heard: set[str] = set()
    lost: list[tuple[str, str, float]] = []
    subscription = network.subscribe(TOPIC, lambda peer, data: True)

    async def listen() -> None:
        async for _, data in subscription:
            heard.add(data.decode())

    async def watch() -> None:
        async for change in network.changes():
            if not change.up:
                lost.append((change.peer, change.reason, time.time()))

    def say(answer: object) -> None:
        print(json.dumps(answer), flush=True)

    async with network.running(), trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(watch)
        say(
            {
                "peer": network.peer,
                "address": network.addresses[0],
                "bulk_port": network.endpoint.port,
            }
        )
        nursery.start_soon(network.provide, KEY)
        commands = trio.lowlevel.FdStream(sys.stdin.fileno())
        buffered = b""
        while received := await commands.receive_some(4096):
            buffered += received
            *lines, buffered = buffered.split(b"\n")
            for line in lines:
                command, _, words = line.decode().partition(" ")
                if command == "publish":
                    await network.publish(TOPIC, words.encode())
                elif command == "status":
                    links = [(link.peer, link.rtt_s) for link in network.links()]
                    say(
                        {
                            "links": links,
                            "heard": sorted(heard),
                            "lost": lost,
                            "cpu_s": time.process_time(),
                            "refusals": network.refusals(),
                        }
                    )
                elif command == "find":
                    say(await network.find_providers(KEY))
                elif command == "quit":
                    nursery.cancel_scope.cancel()
                    return
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
