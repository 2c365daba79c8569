"""A node serves the states that it keeps, from memory and from disk."""

from __future__ import annotations

import trio

from daemon.swarm.piece_server import IDLE_S, PieceRequest
from daemon.swarm.state_transfer import OPEN_STATES, StateServer
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES
from simulator.fakes.clock import run_virtual
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium
from tests.daemon.swarm.state_holders import (
    LEAVES,
    MOMENTUM,
    PARAMETERS,
    TIP,
    VALUE,
    Scenario,
    vector,
)


def test_served_states_are_closed_without_requests() -> None:
    scenario = Scenario(1)

    async def story() -> None:
        holder = scenario.holders[0]
        for number in range(2, 2 + 2 * OPEN_STATES):
            tip = bytes([number]) * 32
            await holder.keep(tip, number, vector(number))
            assert await holder.server.answer(PieceRequest(tip=tip, first=0, count=1)) is not None
        assert len(holder.server._open) == OPEN_STATES
        await trio.sleep(IDLE_S + 1.0)
        await holder.server.sweep()
        assert not holder.server._open

    scenario.play(story)


def test_served_states_come_from_memory_before_the_checkpoint_is_written() -> None:
    """A node with a full or slow disk once served no state."""

    async def story() -> None:
        whole = VALUE.tobytes() + MOMENTUM.tobytes()
        server = StateServer(
            MemoryDisk(MemoryMedium()),
            {TIP: LEAVES}.get,
            lambda: PARAMETERS,
            lambda tip, offset, size: whole[offset : offset + size],
        )
        assert await server.answer(PieceRequest(tip=TIP, first=0, count=0)) == b"".join(LEAVES)
        assert (
            await server.answer(PieceRequest(tip=TIP, first=1, count=1))
            == whole[STATE_CHUNK_BYTES : 2 * STATE_CHUNK_BYTES]
        )
        assert await server.answer(PieceRequest(tip=b"o" * 32, first=1, count=1)) is None

    run_virtual(story)
