"""Sixteen real processes make one swarm."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.network.node_processes import NodeProcess, node_processes

NODES = 16
MIN_CONNECTIONS = 8
IDLE_S = 20.0
# The share of a core, with all fifteen others connected and the swarm a minute old. With eight
# connections it is below 0.01.
IDLE_SHARE = 0.04


@pytest.mark.real
# About 75 s on two cores, 20 of them importing libp2p sixteen times.
@pytest.mark.slow
async def test_sixteen_processes_hear_every_message_and_hold_their_connections(
    tmp_path: Path,
) -> None:
    with trio.fail_after(170):
        async with node_processes() as start:
            nodes: list[NodeProcess] = [await start(tmp_path, 1)]
            await nodes[0].begin()
            for seed in range(2, NODES + 1):
                nodes.append(await start(tmp_path, seed, nodes[0].address))
            for node in nodes[1:]:
                await node.begin()
            while (
                min([len((await node.ask("status"))["links"]) for node in nodes]) < MIN_CONNECTIONS
            ):
                await trio.sleep(0.5)
            for number, node in enumerate(nodes):
                await node.say(f"publish words of {number}")
            everything = {f"words of {number}" for number in range(NODES)}
            for number, node in enumerate(nodes):
                while set((await node.ask("status"))["heard"]) != everything - {
                    f"words of {number}"
                }:
                    await trio.sleep(0.2)
            for node in (nodes[0], nodes[-1]):
                found: set[str] = set()
                while found != {other.peer for other in nodes}:
                    found = {node.peer, *await node.ask("find")}
            before = [(await node.ask("status"))["cpu_s"] for node in nodes]
            await trio.sleep(IDLE_S)
            after = [(await node.ask("status"))["cpu_s"] for node in nodes]
            shares = sorted(
                (late - early) / IDLE_S for early, late in zip(before, after, strict=True)
            )
            assert shares[NODES // 2] < IDLE_SHARE, f"idle shares of a core: {shares}"
