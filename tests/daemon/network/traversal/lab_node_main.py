"""A node's network in a process of its own, which learns the others' endpoints from a folder.

python lab_node_main.py FOLDER NAME SETTINGS

SETTINGS is JSON for `NetworkSettings`. Commands arrive on stdin as lines of JSON; each answer is
one line. The end of stdin ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint

BULK = "/hypergpu/test/bulk/1"
PIECE_BYTES = 1 << 20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LEARN_S = 0.2
OPEN_S = 20.0


class LabNode:
    def __init__(self, folder: Path, name: str, settings: NetworkSettings) -> None:
        self._folder, self._name = folder, name
        certificate = load_or_make(folder / f"{name}.pem", name)
        self.network = LibP2PNetwork(settings, name.encode().ljust(32, b"\1"), certificate)
        self.network.serve_bulk(BULK, self._receive)
        self._endpoints: dict[PeerId, Endpoint] = {}
        self._received_bytes = 0

    async def run(self) -> None:
        async with self.network.running(), trio.open_nursery() as nursery:
            nursery.start_soon(self._learn)
            said = {"peer": self.network.peer, "addresses": self.network.addresses}
            print(json.dumps(said), flush=True)
            commands = trio.lowlevel.FdStream(sys.stdin.fileno())
            buffered = b""
            while received := await commands.receive_some(1 << 16):
                *lines, buffered = (buffered + received).split(b"\n")
                for line in lines:
                    print(json.dumps(await self._answer(json.loads(line))), flush=True)
            nursery.cancel_scope.cancel()

    async def _learn(self) -> None:
        """Publish this node's endpoint, and admit those of the others."""
        own = self._folder / f"{self._name}.endpoint"
        while True:
            written = own.with_suffix(".new")
            written.write_bytes(msgspec.msgpack.encode(self.network.endpoint))
            os.replace(written, own)
            for file in self._folder.glob("*.endpoint"):
                found = msgspec.msgpack.decode(file.read_bytes(), type=Endpoint)
                if found.peer != self.network.peer and self._endpoints.get(found.peer) != found:
                    self._endpoints[found.peer] = found
                    self.network.admit(found)
                    self.network.keep(frozenset(self._endpoints))
            await trio.sleep(LEARN_S)

    async def _receive(self, stream: ByteStream) -> None:
        before, buffer = self._received_bytes, memoryview(bytearray(1 << 18))
        while size := await stream.receive_into(buffer):
            self._received_bytes += size
        await stream.send_all((self._received_bytes - before).to_bytes(8, "big"))
        await stream.send_eof()

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked["do"]:
            case "send":
                return await self._send(asked["to"], asked["size"], bytes.fromhex(asked["data"]))
            case "report":
                return {"report": msgspec.to_builtins(await self.network.diagnose())}
            case _:
                return self._state()

    async def _send(self, to: PeerId, size: int, data: bytes) -> dict[str, Any]:
        """Send `data` again and again, `size` bytes in all."""
        piece = memoryview(data * max(1, PIECE_BYTES // len(data)))
        began = time.monotonic()
        try:
            with trio.fail_after(OPEN_S):
                stream = await self.network.open_bulk(self._endpoints[to], BULK)
            opened_s, left, cpu_s = time.monotonic() - began, size, time.process_time()
            while left:
                await stream.send_all(piece[:left])
                left -= min(left, len(piece))
            await stream.send_eof()
            answer = b""
            while more := await stream.receive_some(8):
                answer += more
            await stream.aclose()
        except (Unreachable, trio.TooSlowError) as error:
            return {"error": str(error) or "no stream", "after_s": time.monotonic() - began}
        return {
            "error": "" if int.from_bytes(answer, "big") == size else "bytes are missing",
            "opened_s": opened_s,
            "seconds": time.monotonic() - began,
            "cpu_s": time.process_time() - cpu_s,
            "path": self.network.path_to(to).kind,
        }

    def _state(self) -> dict[str, Any]:
        network = self.network
        return {
            "links": {link.peer: link.path for link in network.links()},
            "at": {link.peer: link.address for link in network.links()},
            "reach": msgspec.to_builtins(network.reach),
            "text": network.reach_text,
            "relay": msgspec.to_builtins(network.relay_figures()),
            "refusals": network.refusals(),
            "reaches": {
                peer: msgspec.to_builtins(known.reach) for peer, known in self._endpoints.items()
            },
            "received_bytes": self._received_bytes,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "memory_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES,
            "cpu_s": time.process_time(),
        }


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[3], type=dict[str, Any])
    node = LabNode(Path(sys.argv[1]), sys.argv[2], msgspec.convert(given, NetworkSettings))
    trio.run(node.run)
