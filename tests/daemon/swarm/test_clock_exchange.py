"""Nodes compare their clocks over the fake network, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from daemon.swarm.clock_exchange import ASK_AGAIN_S, CODE, PROTOCOL, ClockExchange
from daemon.swarm.frames import frame
from protocol.journal import ClockReport, JournalEvent, Trouble, Warned
from protocol.ports.byte_stream import ByteStream
from simulator.fakes.clock import run_virtual
from simulator.fakes.swarm import FakeSwarm

NOW_S = 1_796_000_000
YEARS_S = 5 * 365 * 86_400


class Nodes:
    """Nodes whose clocks are off by some seconds."""

    def __init__(self, *offsets_s: int, answers: bytes | None = None) -> None:
        """The last node answers `answers` where given, and runs no exchange of its own."""
        self.swarm = FakeSwarm(random.Random(1))
        self.offsets_s = list(offsets_s)
        self.networks = [self.swarm.network(bytes([65 + i]) * 32) for i in range(len(offsets_s))]
        self.said: list[list[JournalEvent]] = [[] for _ in offsets_s]
        self.refused: list[str] = []
        real = len(offsets_s) - (answers is not None)
        self.exchanges = [self._exchange(i) for i in range(real)]
        if answers is not None:

            async def answer(stream: ByteStream) -> None:
                await stream.send_all(answers)
                await stream.send_eof()

            self.networks[-1].serve(PROTOCOL, answer)

    def _exchange(self, i: int) -> ClockExchange:
        return ClockExchange(
            self.networks[i],
            lambda: int(1e9 * (NOW_S + self.offsets_s[i] + trio.current_time())),
            self.said[i].append,
            lambda peer: f"node-{self.peers.index(peer)}",
            lambda reason, _peer, _detail: self.refused.append(reason),
        )

    @property
    def peers(self) -> list[str]:
        return [network.peer for network in self.networks]

    def warnings(self, i: int) -> list[str]:
        return [one.message for one in self.said[i] if isinstance(one, Warned)]

    def troubles(self, i: int) -> list[str]:
        found = [one for one in self.said[i] if isinstance(one, Trouble)]
        assert all(one.code == CODE for one in found)
        return [one.message for one in found]

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery, self.swarm.running():
                for network in self.networks:
                    await nursery.start(_run, network)
                for exchange in self.exchanges:
                    nursery.start_soon(exchange.run)
                await story()
                nursery.cancel_scope.cancel()

        run_virtual(main)

    def play_for(self, seconds: float) -> None:
        async def story() -> None:
            await trio.sleep(seconds)

        self.play(story)


async def _run(network: object, *, task_status: object) -> None:
    async with network.running():  # type: ignore[attr-defined]
        task_status.started()  # type: ignore[attr-defined]
        await trio.sleep_forever()


def test_clock_exchange_tells_everybody_about_the_wrong_clock() -> None:
    nodes = Nodes(0, 3, -YEARS_S)
    nodes.play_for(3 * ASK_AGAIN_S)
    for i in (0, 1):
        assert nodes.warnings(i) == [
            "The clock of node-2 is 1825 d behind. Rounds do not need it; tell its person"
        ], "once, not at each look"
        assert not nodes.troubles(i)
    (own,) = nodes.troubles(2)
    assert own.startswith("This machine's clock is 1825 d behind by those of 2 of 2 peers")
    reports = [one for one in nodes.said[2] if isinstance(one, ClockReport)]
    assert reports[-1].compared == 2
    assert abs(reports[-1].offset_s + YEARS_S) < 10


def test_clock_exchange_takes_back_what_it_said_once_the_clock_is_right() -> None:
    nodes = Nodes(0, 0, 7200)

    async def story() -> None:
        await trio.sleep(2 * ASK_AGAIN_S)
        nodes.offsets_s[2] = 0
        await trio.sleep(2 * ASK_AGAIN_S)

    nodes.play(story)
    own = nodes.troubles(2)
    assert len(own) == 2
    assert own[1] == ""
    assert len(nodes.warnings(0)) == 1


def test_clock_exchange_refuses_garbage_and_ignores_silence() -> None:
    nodes = Nodes(0, 0, answers=frame(b"abc"))
    nodes.play_for(2 * ASK_AGAIN_S)
    assert set(nodes.refused) == {"malformed"}
    silent = Nodes(0, 0, answers=b"")
    silent.play_for(2 * ASK_AGAIN_S)
    for one in (nodes, silent):
        assert not one.warnings(0)
        assert not one.troubles(0)
