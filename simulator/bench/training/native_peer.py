"""A node with the native engine and its worker, as `hypergpud start` composes them.

Network, bulk plane, disk, engine, worker process and their settings are those of a node. Only the
start is the benchmark's: the engine begins when all peers are up.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import msgspec
import trio

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.disk.file_disk import FileDisk
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.node_key import load_or_make_key
from daemon.logs import set_up_logging
from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import announce
from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.engine_context import NodePorts, engine_context
from daemon.system.offload import in_abandonable_thread, in_thread
from protocol import journal
from protocol.errors import UserError
from protocol.run.manifest import SignedManifest
from simulator.bench.training.memory import peak_bytes, peak_of_descendants
from simulator.bench.training.peer_settings import (
    PeerDone,
    PeerFailed,
    PeerListens,
    PeerPipe,
    PeerReady,
    TrainingPeer,
    home_of,
)
from simulator.bench.training.snapshots import SnapshotWriter

JOURNAL_FILE = "journal.jsonl"
# Until the network has a connection to every other peer.
MEET_S, MEET_PAUSE_S = 30.0, 0.1


class AnchorRecorder:
    """Receives the engine's journal: writes the first peer's anchors, and keeps what went wrong."""

    def __init__(self, settings: TrainingPeer, home: Path) -> None:
        self.engine: NativeEngine | None = None
        self.notes: list[str] = []
        self._file = (home / JOURNAL_FILE).open("ab")
        self._snapshots = (
            SnapshotWriter(Path(settings.folder) / "peer-0", settings.spacing_s)
            if settings.index == 0
            else None
        )

    def record(self, event: journal.JournalEvent) -> None:
        """Record one event of the engine or the worker."""
        line = {"at_s": time.monotonic(), "event": event}
        self._file.write(msgspec.json.encode(line) + b"\n")
        match event:
            case journal.RoundCertified(state_digest=digest) if digest:
                self._certified()
            case journal.ViewPassed(reason=reason) | journal.WorkDropped(reason=reason):
                self.notes.append(f"{type(event).__name__}: {reason}")
            case journal.Warned(code=code, message=message):
                self.notes.append(f"{code}: {message}")
            case _:
                pass

    def _certified(self) -> None:
        """Write the anchor of the certificate that this node has just adopted."""
        store = self.engine.state_store if self.engine else None
        if self._snapshots is not None and self._snapshots.due and store is not None:
            self._snapshots.write(store.anchor.value, store.tip.samples)

    def close(self) -> None:
        self._file.close()


async def live(pipe: PeerPipe, settings: TrainingPeer) -> None:
    """Run the node until the conductor is gone."""
    home = home_of(Path(settings.folder), settings.index)
    set_up_logging(file=home / "node.log")
    signed = msgspec.msgpack.decode(settings.manifest, type=SignedManifest)
    signer, secret = load_or_make_key(home)
    network = LibP2PNetwork(
        NetworkSettings(listen_host=settings.host, join=(settings.join,) if settings.join else ()),
        secret,
        load_or_make(home / BULK_CERTIFICATE_FILE, home.name),
    )
    recorder = AnchorRecorder(settings, home)
    worker = WorkerTrainer(
        signed.open(),
        signer.peer,
        WorkerSettings(threads=1, allow_custom_task=True),
        recorder.record,
    )
    ports = NodePorts(
        network=network,
        disk=FileDisk(home, in_thread, report=recorder.notes.append),
        offload=in_thread,
        record=recorder.record,
    )
    engine = recorder.engine = NativeEngine(
        context=engine_context(signed, signer),
        ports=ports,
        trainer=worker,
        name=home.name,
        serial=time.time_ns,
    )
    async with worker.running(), network.running(), trio.open_nursery() as nursery:
        pipe.say(PeerListens(info=network.addresses[0]))
        nursery.start_soon(announce, network, signed)
        await worker.describe()
        await _meet(network, settings.peers)
        before = peak_bytes(os.getpid())
        pipe.say(PeerReady())
        start = await in_abandonable_thread(pipe.start)
        await trio.sleep(start.at_s - time.monotonic())
        await nursery.start(engine.run)
        await trio.sleep(max(0.0, start.until_s - time.monotonic()))
        pipe.say(
            PeerDone(
                memory_bytes={
                    "node": peak_bytes(os.getpid()) - before,
                    "worker": peak_of_descendants(),
                },
                notes=tuple(dict.fromkeys(recorder.notes)),
            )
        )
        await in_abandonable_thread(pipe.wait_for_end)
        nursery.cancel_scope.cancel()
    recorder.close()


async def _meet(network: LibP2PNetwork, peers: int) -> None:
    """Wait for a connection to every other peer."""
    with trio.move_on_after(MEET_S):
        while len({link.peer for link in network.links()}) < peers - 1:
            await trio.sleep(MEET_PAUSE_S)
        return
    raise UserError(
        "BENCH", "The peers did not connect to each other.", why=f"not within {MEET_S:.0f} s"
    )


def run(pipe: PeerPipe, settings: TrainingPeer) -> None:
    try:
        trio.run(partial(live, pipe, settings))
    except* EOFError:
        # The conductor gave up before the start.
        pass
    except* UserError as group:
        pipe.say(PeerFailed(why=str(group.exceptions[0])))
