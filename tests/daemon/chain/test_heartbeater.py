"""Heartbeats in virtual time over the fake chain: when they come, and what faults cost."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from contracts.devnet.genesis import COIN, dev_account
from daemon.chain.certified_totals import HeartbeatFigures
from daemon.chain.heartbeater import HEARTBEAT_S, HEARTBEAT_TIMEOUT_S, AgentIdentity, Heartbeater
from protocol.chain.errors import ChainRefused, ChainUnreachable, WrongChain
from protocol.chain.port import Chain
from protocol.journal import ChainReport, JournalEvent
from protocol.ports.offload import inline
from protocol.status import StatusState, fold, status_at
from simulator.fakes.chain import FakeChain
from simulator.fakes.ledger import FakeLedger
from tests.protocol.settlement.paid import wallet

BLOCK_S = 2.0
ME = wallet(0).address


class Node:
    """A heartbeater over a fake chain whose clock is trio's."""

    def __init__(self, *, dice: float = 0.0, figure: HeartbeatFigures | None = None) -> None:
        # The client advances this time for its blocks. The heartbeater uses trio's clock.
        self._waited_s = 0.0
        self.ledger = FakeLedger(
            lambda: trio.current_time() + self._waited_s,
            owner=ME,
            settlers=(ME,),
            needed=1,
            block_s=BLOCK_S,
            funded={ME: COIN},
        )
        self.chain = FakeChain(self.ledger, ME, self._wait)
        self.figure = figure or HeartbeatFigures(samples=10, certificate=b"\x01" * 32)
        self.events: list[JournalEvent] = []
        self.sent: list[tuple[float, int]] = []
        self.heartbeater = Heartbeater(
            open_chain=self._open,
            identity=AgentIdentity(name="attic", payout=dev_account("cold")),
            figures=lambda: self.figure,
            offload=inline,
            record=self.events.append,
            jitter=lambda: dice,
        )
        beat = self.chain.heartbeat

        def heartbeat(samples: int, certificate: bytes, **more: str | None) -> object:
            self.sent.append((trio.current_time(), samples))
            return beat(samples, certificate, **more)  # type: ignore[arg-type]

        self.chain.heartbeat = heartbeat  # type: ignore[method-assign, assignment]

    def _wait(self, seconds: float) -> None:
        self._waited_s += seconds

    def _open(self) -> Chain:
        return self.chain

    @property
    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, ChainReport)]

    async def live(self, seconds: float, *, work_s: float | None = None) -> None:
        """Run the heartbeater for a while; a certificate counts ten samples every `work_s`."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.heartbeater.run)
                while True:
                    await trio.sleep(work_s or seconds)
                    if work_s:
                        self.figure = HeartbeatFigures(
                            samples=self.figure.samples + 10,
                            certificate=bytes([self.figure.samples % 251]) * 32,
                        )


async def test_heartbeater_registers_and_beats_at_a_third_of_the_timeout(
    autojump_clock: MockClock,
) -> None:
    node = Node()
    await node.live(1000.0, work_s=30.0)
    agent = node.chain.agent(ME)
    assert (agent.registered, agent.name, agent.payout) == (True, "attic", dev_account("cold"))
    times = [at for at, _ in node.sent]
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == [HEARTBEAT_S] * 9
    assert 3 * HEARTBEAT_S <= HEARTBEAT_TIMEOUT_S


async def test_jitter_makes_a_heartbeat_earlier_and_never_later(autojump_clock: MockClock) -> None:
    assert (
        HEARTBEAT_S * 0.79
        < Node(dice=1.0).heartbeater.wait_s()
        < Node(dice=0.5).heartbeater.wait_s()
        < HEARTBEAT_S
    )


async def test_heartbeater_sends_each_figure_once(autojump_clock: MockClock) -> None:
    node = Node()
    await node.live(1000.0)
    assert len(node.sent) == 1


async def test_a_chain_that_stops_for_ten_minutes_is_reported_once(
    autojump_clock: MockClock,
) -> None:
    node = Node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(node.live, 1500.0, work_s=20.0))

        async def away() -> None:
            await trio.sleep(250.0)
            node.ledger.unreachable = True
            await trio.sleep(600.0)
            node.ledger.unreachable = False

        nursery.start_soon(away)
    assert [one for i, one in enumerate(node.states) if not i or node.states[i - 1] != one] == [
        "live",
        "down",
        "live",
    ]
    # The failure is reported once, although the heartbeater tried many times.
    assert node.states.count("down") == 1
    back = [at for at, _ in node.sent if at >= 850.0]
    assert back[0] <= 850.0 + HEARTBEAT_S


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ChainUnreachable("garbage"), "down"),
        (WrongChain("chain 1 where 41956 was expected"), "wrong"),
    ],
)
async def test_errors_of_the_chain_are_reported_and_not_raised(
    autojump_clock: MockClock, error: Exception, state: str
) -> None:
    node = Node()

    def broken() -> Chain:
        raise error

    node.heartbeater._open_chain = broken
    await node.live(300.0)
    assert node.states == [state]
    status = StatusState()
    for event in node.events:
        fold(status, event)
    assert str(error) in status_at(status, 1.0).rewards
    assert "unpaid" in status_at(status, 1.0).rewards


async def test_a_refusal_is_reported_with_its_reason(autojump_clock: MockClock) -> None:
    node = Node()

    def refuse(*_: object, **__: object) -> object:
        raise ChainRefused("registry: samples went back")

    node.chain.heartbeat = refuse  # type: ignore[method-assign, assignment]
    report = node.heartbeater.send_heartbeat()
    assert (report.state, "samples went back" in report.reason) == ("refused", True)
