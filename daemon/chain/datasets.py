"""Published data sets: kept in the home under their digest, and exchanged with peers.

Each request has its own stream: the name's 32 bytes in one direction, then one frame with the data
set in the other. The frame is empty if the peer does not have the data set.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import trio

from daemon.disk.atomic import write_atomically
from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.settlement.dataset import (
    MAX_DATASET_BYTES,
    Dataset,
    dataset_name,
    decode_dataset,
    encode_dataset,
)

PROTOCOL = "/hypergpu/settlement/1"
FOLDER = "settlements"
NAME_BYTES = 32
# Data sets in transfer, to all peers and to one. Each is in memory as a whole.
SERVED_AT_ONCE, SERVED_TO_PEER = 4, 1
# The time limit for one peer, as for certificates.
ANSWER_S = 20.0


def keep_dataset(home: Path, dataset: Dataset) -> Digest:
    """Write a data set, durably. Returns its name. Raises `DiskFull`."""
    raw = encode_dataset(dataset)
    name = dataset_name(raw)
    write_atomically(_path(home, name), [memoryview(raw)])
    return name


def load_dataset(home: Path, name: Digest) -> Dataset | None:
    """Read a data set; None if the home lacks it. Raises `UserError("DATASET")` for damage."""
    raw = _read(home, name)
    if raw is None:
        return None
    try:
        return decode_dataset(raw, name)
    except PeerFault as fault:
        raise UserError(
            "DATASET",
            f"{_path(home, name)} is damaged.",
            why=str(fault),
            fix=f"remove it: rm {_path(home, name)}",
        ) from None


def serve_datasets(network: Network, home: Path, offload: Offload) -> None:
    """Serve data sets to peers. Must be called before the network starts."""
    turns = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def answer(stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            name = await FrameReader(stream).expect_frame(NAME_BYTES)
            async with turns.slot(stream.peer):
                raw = await offload(lambda: _read(home, name)) if len(name) == NAME_BYTES else None
                await stream.send_all(frame(raw or b""))
                await stream.send_eof()
            return
        raise PeerFault(
            "timeout", f"the peer did not request and receive a data set within {ANSWER_S:g} s"
        )

    network.serve(PROTOCOL, answer)


async def fetch_dataset(
    network: Network, peers: Iterable[PeerId], home: Path, name: Digest, offload: Offload
) -> Dataset:
    """Fetch a data set from the first peer that has it, and keep it.

    Raises `UserError("DATASET")` if no peer has it.
    """
    asked = 0
    for peer in peers:
        asked += 1
        try:
            with trio.move_on_after(ANSWER_S):
                stream = await network.open_stream(peer, PROTOCOL)
                try:
                    await stream.send_all(frame(name))
                    raw = await FrameReader(stream).expect_frame(MAX_DATASET_BYTES)
                finally:
                    await stream.aclose()
                if raw:
                    dataset = decode_dataset(raw, name)
                    await offload(partial(keep_dataset, home, dataset))
                    return dataset
        except (Unreachable, PeerFault):
            # Another peer may have it.
            continue
    raise UserError(
        "DATASET",
        f"None of {asked} connected peers has the data set {name.hex()[:12]}.",
        why="a settler publishes it, and each node that fetched it serves it, too",
        fix="try again when more peers are connected",
    )


def _read(home: Path, name: Digest) -> bytes | None:
    try:
        return _path(home, name).read_bytes()
    except FileNotFoundError:
        return None


def _path(home: Path, name: Digest) -> Path:
    return home / FOLDER / name.hex()
