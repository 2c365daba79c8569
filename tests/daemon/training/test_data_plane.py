"""Tests how long the data plane keeps bytes of a plan that this node does not carry out."""

from __future__ import annotations

import random

import pytest
import trio

from daemon.services.training.native.exchange.all_reduce import EARLY_S
from daemon.services.training.native.exchange.bulk_headers import (
    ABILITIES,
    PROTOCOL,
    SliceHeader,
    parcel,
)
from daemon.services.training.native.exchange.data_plane import DataPlane
from daemon.swarm.members import Members
from protocol.errors import Unreachable
from protocol.identity import Signer
from simulator.fakes.clock import run_virtual
from simulator.fakes.swarm import FakeSwarm

RUN, PLAN, NEXT = b"r" * 32, b"p" * 32, b"q" * 32


@pytest.mark.parametrize("certified", [False, True])
def test_bytes_of_a_plan_certified_without_this_node_do_not_block_their_stream(
    certified: bool,
) -> None:
    """A certificate releases the bytes at once.

    Without this, a member in a later view kept the senders of the earlier view waiting for a plan
    that it would never carry out, and delayed their next round.
    """

    async def story() -> None:
        swarm = FakeSwarm(random.Random(1))
        ours = Signer(bytes([1]) * 32)
        here, there = swarm.network(bytes([1]) * 32), swarm.network(bytes([2]) * 32)
        data_plane = DataPlane(
            network=here,
            run=RUN,
            signer=ours,
            codec="float32",
            members=Members(ours.peer, lambda _: None, here.admit),
            # The test sums nothing.
            offload=None,  # type: ignore[arg-type]
            emit=lambda _: None,
            refuse=lambda *_: None,
        )
        async with swarm.running(), here.running(), there.running():
            await trio.sleep(1.0)
            here.admit(there.endpoint)
            stream = await there.open_bulk(here.endpoint, PROTOCOL)
            assert await stream.receive_some(len(ABILITIES)) == ABILITIES
            for plan in (PLAN, NEXT):
                item = parcel(
                    SliceHeader(plan=plan, slice=0, proof=(), size=8), memoryview(bytes(8))
                )
                await stream.send_all(item.header)
                await stream.send_all(item.payload)
            await trio.sleep(1.0)
            began = trio.current_time()
            if certified:
                data_plane.certified(PLAN)
                data_plane.certified(NEXT)
            await stream.send_eof()
            try:
                assert await stream.receive_some(1) == b""
            except Unreachable:
                assert not certified
            elapsed_s = trio.current_time() - began
            assert elapsed_s < 1.0 if certified else elapsed_s > EARLY_S - 2.0

    run_virtual(story)
