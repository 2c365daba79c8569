"""Gives a run's initial weights to other members, and gets them from members.

The manifest names the digest of the first state, so every chunk is checked before it is kept. Each
member keeps the weights on its disk as long as the run, and gives them to newcomers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import trio

from daemon.swarm.multi_peer_download import download_from
from daemon.swarm.piece_server import PieceRequest, range_of, serve_pieces
from daemon.swarm.state_download import StateDownload
from daemon.swarm.state_transfer import chunk_sizes
from protocol.averaging.outer_step import state_leaves
from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest, merkle_root
from protocol.identity import PeerId
from protocol.ports.network import Network
from protocol.ports.offload import Offload

PROTOCOL = "/hypergpu/initial/1"
# Between attempts while no connected peer has the weights.
RETRY_S = 2.0


class InitialWeights(Protocol):
    """The weights on this node's disk."""

    def exists(self) -> bool: ...

    def load(self) -> Vector | None: ...

    def save(self, parameters: Vector) -> None: ...

    def read(self, offset: int, size: int) -> bytes | None: ...


class InitialDownload(StateDownload):
    """The first state of a run, on its way here."""

    protocol, what = PROTOCOL, "initial weights"


class InitialServer:
    """The initial weights that one node gives to others."""

    def __init__(self, run: Digest, weights: InitialWeights, offload: Offload) -> None:
        self._run, self._weights, self._offload = run, weights, offload
        self._leaves: list[Digest] | None = None
        self._parameters = 0
        self._loading = trio.Lock()

    async def answer(self, request: PieceRequest) -> bytes | None:
        """The bytes asked for; None while this node does not have them.

        Raises:
            PeerFault: For a range that no state has.
        """
        if request.tip != self._run or not await self._load():
            return None
        assert self._leaves is not None
        if request.count == 0:
            return b"".join(self._leaves)
        offset, size = range_of(chunk_sizes(self._parameters), request, "state")
        border = 4 * self._parameters
        values = max(0, min(size, border - offset))
        data = await self._offload(lambda: self._weights.read(offset, values)) if values else b""
        # The momentum is zero.
        return None if data is None else data + bytes(size - values)

    async def _load(self) -> bool:
        async with self._loading:
            if self._leaves is None and self._weights.exists():
                found = await self._offload(lambda: first_state(self._weights))
                if found is not None:
                    self._parameters, self._leaves = found[0].size, found[1]
            return self._leaves is not None

    async def sweep(self) -> None:
        """Keep the digests: they are small, and newcomers ask for them at any time."""


def first_state(weights: InitialWeights) -> tuple[Vector, list[Digest]] | None:
    """Return the weights on disk, and the leaves of the state with them."""
    parameters = weights.load()
    if parameters is None:
        return None
    return parameters, state_leaves(parameters, np.zeros_like(parameters))


def serve_initial(network: Network, server: InitialServer) -> None:
    """Answer requests for the initial weights."""
    serve_pieces(network, PROTOCOL, server)


async def obtain_initial(
    *,
    run: Digest,
    state: Digest,
    parameters: int,
    weights: InitialWeights,
    network: Network,
    offload: Offload,
    refuse: Callable[[str, PeerId, str], None],
    wait: Callable[[str], None],
) -> Vector:
    """Return the initial weights, from this node's disk or from connected peers.

    Waits until a peer has them. They are on disk on return.

    Args:
        run: the run.
        state: the digest of the first state, as the manifest says.
        parameters: the size of the task's vector.
        weights: the weights on this node's disk.
        network: asks peers.
        offload: runs disk and digests in a thread.
        refuse: reports a peer that gives something else.
        wait: gets a sentence for each attempt that failed.

    Raises:
        DiskFull: the weights cannot be written.
    """
    found = await offload(lambda: first_state(weights))
    if found is not None and found[0].size == parameters and merkle_root(found[1]) == state:
        return found[0]
    while True:
        download = InitialDownload(run, state, parameters)
        failure = await download_from(
            network, download, lambda: [link.peer for link in network.links()], refuse
        )
        if not failure:
            break
        wait(failure)
        await trio.sleep(RETRY_S)
    await offload(lambda: weights.save(download.value))
    return download.value
