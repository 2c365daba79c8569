"""Published data sets: kept in the home under their digest, given to whoever asks, fetched from
whoever has them.

One request, one answer, one stream: the 32 bytes of the name, then a frame with the data set, or an
empty one where the peer has none.
"""

from __future__ import annotations

from collections.abc import Iterable
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
# Data sets on their way, to all peers and to one: each is held whole.
SERVED_AT_ONCE, SERVED_TO_PEER = 4, 1
ANSWER_S = 20.0  # for one peer, as with certificates


def keep_dataset(home: Path, dataset: Dataset) -> Digest:
    """Durable on return. Returns its name. Raises `DiskFull`."""
    raw = encode_dataset(dataset)
    name = dataset_name(raw)
    write_atomically(_path(home, name), [memoryview(raw)])
    return name


def load_dataset(home: Path, name: Digest) -> Dataset | None:
    """None when it is not here. Raises `UserError("DATASET")` when it is damaged."""
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
    """Answer those who ask. Before the network starts."""

    turns = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def take(stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            name = await FrameReader(stream).expect_frame(NAME_BYTES)
            async with turns.slot(stream.peer):
                raw = await offload(lambda: _read(home, name)) if len(name) == NAME_BYTES else None
                await stream.send_all(frame(raw or b""))
                await stream.send_eof()
            return
        raise PeerFault("timeout", f"a data set was not asked for and taken within {ANSWER_S:g} s")

    network.serve(PROTOCOL, take)


async def fetch_dataset(
    network: Network, peers: Iterable[PeerId], home: Path, name: Digest, offload: Offload
) -> Dataset:
    """From the first peer that has it; then it is kept here and given on.

    Raises `UserError("DATASET")` when nobody does.
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
                    await offload(lambda found=dataset: keep_dataset(home, found))
                    return dataset
        except (Unreachable, PeerFault):
            continue  # somebody else may have it
    raise UserError(
        "DATASET",
        f"None of {asked} connected peers has the data set {name.hex()[:12]}.",
        why="a settler publishes it, and whoever fetched it gives it on",
        fix="ask again when more peers are connected",
    )


def _read(home: Path, name: Digest) -> bytes | None:
    try:
        return _path(home, name).read_bytes()
    except FileNotFoundError:
        return None


def _path(home: Path, name: Digest) -> Path:
    return home / FOLDER / name.hex()
