"""Twelve daemons in three clusters, far apart and on narrow links between: several rows, and the same bytes on every node."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from simulator.harness.relay import Condition, Relay
from tests.e2e.swarm import Daemon, Swarm, certified
from tests.e2e.test_many import PATIENT, is_up

CLUSTERS, SIZE = 3, 4
NODES = CLUSTERS * SIZE
ROW = 4
FOLLOWED = 3  # rounds
PATIENCE_S = 400.0  # twelve workers on two cores
NEAR = Condition(delay_s=0.002, bytes_per_second=4e6)
FAR = Condition(delay_s=0.05, bytes_per_second=1e6)

RUN = PATIENT.replace("width = 4", "width = 16") + f"[group]\nmax_group = {ROW}\n"

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]


def listening(i: int) -> str:
    return f"127.91.0.{10 + i}"


def advertised(i: int) -> str:
    return f"127.92.0.{10 + i}"


def free_ports() -> tuple[int, int]:
    """Two ports that nobody has here now, on any address."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("", 0))
        other.bind(("", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def cables(pids: dict[str, int], ports: tuple[int, int]) -> Iterator[None]:
    """A relay in a thread of its own, through which every daemon reaches every other. `pids` are filled in as they start."""
    up = threading.Event()
    stop: list[trio.CancelScope] = []
    loop: list[trio.lowlevel.TrioToken] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            stop.append(nursery.cancel_scope)
            loop.append(trio.lowlevel.current_trio_token())
            relay = Relay(nursery)
            names = [f"node-{i}" for i in range(NODES)]
            for i, name in enumerate(names):
                relay.introduce(name, lambda name=name: pids.get(name))
                for port in ports:
                    await relay.forward(name, advertised(i), listening(i), port)
            for i, one in enumerate(names):
                for j in range(i + 1, NODES):
                    relay.between(one, names[j], NEAR if i // SIZE == j // SIZE else FAR)
            up.set()
            await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    try:
        assert up.wait(10.0)
        yield
    finally:
        loop[0].run_sync_soon(stop[0].cancel)
        thread.join(10.0)


def settings(i: int, ports: tuple[int, int]) -> dict[str, object]:
    return {
        "listen_host": listening(i),
        "listen_port": ports[0],
        "bulk_port": ports[1],
        "advertise": [f"/ip4/{advertised(i)}/tcp/{ports[0]}"],
    }


def test_twelve_in_three_clusters_end_with_the_same_bytes(tmp_path: Path) -> None:
    began, ports = time.monotonic(), free_ports()
    pids: dict[str, int] = {}
    with cables(pids, ports), Swarm(tmp_path, round_s=12.0, run=RUN, nice=10) as swarm:
        nodes: list[Daemon] = []
        for i in range(NODES):
            name = f"node-{i}"
            node = (
                swarm.join(name, nodes[(i - 1) // 2], network=settings(i, ports))
                if nodes
                else swarm.begin(name, network=settings(i, ports))
            )
            pids[name] = node.pid
            nodes.append(node)
        swarm.until(lambda: all(is_up(node) for node in nodes), "all workers are up", PATIENCE_S)
        print(f"all {NODES} up after {time.monotonic() - began:.0f} s")
        swarm.until(lambda: all(node.now().network.connections >= SIZE for node in nodes), "all are connected", PATIENCE_S)
        joined = max(node.now().run.number for node in nodes) + 1
        swarm.until_round(joined + FOLLOWED - 1, *nodes, limit_s=PATIENCE_S)
        rows = set()
        for number in range(joined, joined + FOLLOWED):
            known = [certified(node.now()).get(number) for node in nodes]
            there = [one for one in known if one is not None]
            assert len({one.certificate for one in there}) == 1
            rows.add(there[0].rows)
            took = sorted(round(one.exchange_s, 2) for one in there)
            print(
                f"round {number}: {len(there[0].members)} members, rows {there[0].rows}, exchange {took} s, predicted {there[0].predicted_s}"
            )
            print(f"  {there[0].plan}")
        for node in nodes[:2]:
            print([(peer.name, peer.rtt_s, peer.quality_reason) for peer in node.now().peers])
        assert any(len(each) >= CLUSTERS for each in rows), f"rows were {rows}"
        swarm.stop(*nodes)
        agreement = swarm.agreement(*nodes)
        assert agreement.agreed, agreement.reason
        print(f"agreement: {agreement.reason}")
        for node in nodes:
            assert "Traceback" not in node.log()
