"""Gives states to other members.

A state is given from memory while it is the current anchor, and from its checkpoint otherwise. Most
states have no checkpoint: a node writes one every few minutes. So a state that a peer has begun to
read stays in memory when the anchor moves on (`Anchor.adopt`), until no request has arrived for
`IDLE_S`. In the same way a checkpoint stays open when the disk removes it.
`daemon/swarm/state_download.py` is the side that asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
import trio

from daemon.swarm.piece_server import IDLE_S, PieceRequest, range_of, serve_pieces
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES
from protocol.digest import Digest
from protocol.ports.disk import Disk, KeptState
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/state/1"
# States open at once: as many as a disk keeps, and as many again that it has removed. A removed
# file that is open still takes its place on the disk.
OPEN_STATES = 6

InMemory = Callable[[Digest, int, int], bytes | None]
"""Maps (tip, offset, size) to bytes of a state in memory; None for a tip without one."""


def chunk_sizes(parameters: int) -> list[tuple[int, int]]:
    """The (offset, size) of each chunk of a state: the anchor's chunks, then the momentum's."""
    part = 4 * parameters
    return [
        (base + start, min(STATE_CHUNK_BYTES, part - start))
        for base in (0, part)
        for start in range(0, part, STATE_CHUNK_BYTES)
    ]


class _OpenCheckpoint(msgspec.Struct):
    """A checkpoint that is being read."""

    state: KeptState
    leaves: list[Digest]
    asked_at: float


class StateServer:
    """The states that one node gives to others."""

    def __init__(
        self,
        disk: Disk,
        leaves: Callable[[Digest], list[Digest] | None],
        parameters: Callable[[], int],
        in_memory: InMemory = lambda *_: None,
    ) -> None:
        """`leaves` returns the leaves of the state of a tip, if it is one of the last few."""
        self._disk = disk
        self._leaves = leaves
        self._parameters = parameters
        self._in_memory = in_memory
        # By tip of a state in memory: when it was asked for last.
        self._asked_at: dict[Digest, float] = {}
        # The state asked for longest ago comes first.
        self._open: OrderedDict[Digest, _OpenCheckpoint] = OrderedDict()
        self._opening = trio.Lock()

    async def answer(self, request: PieceRequest) -> bytes | None:
        """The bytes asked for; None when this node does not have them.

        Raises:
            PeerFault: For a range that no state has.
        """
        await self._begin(request.tip)
        held = self._open.get(request.tip)
        leaves = held.leaves if held is not None else self._leaves(request.tip)
        if leaves is None:
            return None
        if request.count == 0:
            return b"".join(leaves)
        offset, size = range_of(chunk_sizes(self._parameters()), request, "state")
        in_memory = self._in_memory(request.tip, offset, size)
        if in_memory is not None:
            self._asked_at[request.tip] = trio.current_time()
            return in_memory
        return await held.state.read(offset, size) if held is not None else None

    def is_read(self, tip: Digest) -> bool:
        """Whether a peer has read a state from memory lately, and may go on."""
        return trio.current_time() - self._asked_at.get(tip, -IDLE_S) < IDLE_S

    async def _begin(self, tip: Digest) -> None:
        """Open the checkpoint of a requested state as soon as it is written.

        From then on the state stays readable.
        """
        now = trio.current_time()
        async with self._opening:
            if tip not in self._open and (leaves := self._leaves(tip)) is not None:
                state = await self._disk.open_state(tip)
                if state is not None:
                    self._open[tip] = _OpenCheckpoint(state, leaves, now)
            if tip in self._open:
                self._open[tip].asked_at = now
                self._open.move_to_end(tip)
            await self._close_oldest_while(lambda held: len(self._open) > OPEN_STATES)

    async def sweep(self) -> None:
        """Close states without a request for a while."""
        now = trio.current_time()
        self._asked_at = {tip: at for tip, at in self._asked_at.items() if now - at < IDLE_S}
        async with self._opening:
            await self._close_oldest_while(lambda held: now - held.asked_at > IDLE_S)

    async def _close_oldest_while(self, over: Callable[[_OpenCheckpoint], bool]) -> None:
        while self._open and over(next(iter(self._open.values()))):
            _, held = self._open.popitem(last=False)
            await held.state.aclose()


def serve_state(network: Network, given: StateServer) -> None:
    """Answer requests for states."""
    serve_pieces(network, PROTOCOL, given)
