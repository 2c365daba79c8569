"""Compares this machine's clock with those of its peers.

A node asks each neighbour for its wall clock, at the first contact and from time to time. What it
finds goes to the journal: a trouble where this machine's clock is wrong, and a warning for each
peer whose clock is.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.messenger import Refuse
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.journal import ClockReport, JournalEvent, Trouble, Warned
from protocol.network.clock_offsets import (
    ClockFinding,
    ClockReading,
    judge_clocks,
    own_clock_text,
    peer_clock_text,
    reading_of,
)
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/clock/1"
CODE = "CLOCK"
# Between two looks for neighbours to ask.
LOOK_S = 1.0
# A clock that the system corrects jumps once. A person who corrects it wants to see that.
ASK_AGAIN_S = 60.0
# The time for one question and its answer. A slower answer says little about a clock.
ANSWER_S = 10.0
# Enough for a majority. More neighbours would only cost more questions.
MOST_ASKED = 16
SERVED_AT_ONCE, SERVED_TO_PEER = 16, 1
# Nanoseconds since 1970, signed, as 8 bytes.
REPLY_BYTES = 8


class ClockExchange:
    """Asks neighbours for their clocks, and answers for this one."""

    def __init__(
        self,
        network: Network,
        wall_ns: Callable[[], int],
        record: Callable[[JournalEvent], None],
        name_of: Callable[[PeerId], str],
        refuse: Refuse,
    ) -> None:
        """Register the protocol on a network that has not started."""
        self._network, self._wall_ns, self._refuse = network, wall_ns, refuse
        self._record, self._name_of = record, name_of
        self._readings: dict[PeerId, ClockReading] = {}
        self._asked: dict[PeerId, float] = {}
        self._warned: set[PeerId] = set()
        self._told = ""
        self._limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)
        network.serve(PROTOCOL, self._answer)

    async def run(self) -> None:
        """Compare clocks until cancelled."""
        while True:
            due = self._due()
            if due:
                async with trio.open_nursery() as nursery:
                    for peer in due:
                        nursery.start_soon(self._ask_neighbour, peer)
                self._report(judge_clocks(self._readings))
            await trio.sleep(LOOK_S)

    def _due(self) -> list[PeerId]:
        """The neighbours to ask now. Those that left are forgotten."""
        now = trio.current_time()
        present = [link.peer for link in self._network.links()][:MOST_ASKED]
        for known in (self._readings, self._asked):
            for peer in [one for one in known if one not in present]:
                del known[peer]
        due = [one for one in present if now - self._asked.get(one, -ASK_AGAIN_S) >= ASK_AGAIN_S]
        self._asked.update(dict.fromkeys(due, now))
        return due

    async def _ask_neighbour(self, peer: PeerId) -> None:
        try:
            self._readings[peer] = await self._ask(peer)
        except Unreachable:
            # Nodes of earlier releases do not answer, and a busy one is asked again.
            return
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))

    async def _ask(self, peer: PeerId) -> ClockReading:
        with trio.move_on_after(ANSWER_S):
            stream = await self._network.open_stream(peer, PROTOCOL)
            try:
                asked_s, began = self._wall_ns() / 1e9, trio.current_time()
                await stream.send_eof()
                reply = await FrameReader(stream).expect_frame(REPLY_BYTES)
                if len(reply) != REPLY_BYTES:
                    raise PeerFault("malformed", f"a clock of {len(reply)} bytes")
                answered_s = int.from_bytes(reply, "big", signed=True) / 1e9
                return reading_of(asked_s, answered_s, trio.current_time() - began)
            finally:
                await stream.aclose()
        raise Unreachable(f"no clock within {ANSWER_S:g} s")

    async def _answer(self, stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            async with self._limiter.slot(stream.peer):
                await stream.send_all(
                    frame(self._wall_ns().to_bytes(REPLY_BYTES, "big", signed=True))
                )
                await stream.send_eof()

    def _report(self, finding: ClockFinding) -> None:
        own = own_clock_text(finding)
        self._record(
            ClockReport(compared=finding.compared, offset_s=finding.own_offset_s or 0.0, text=own)
        )
        if bool(own) != bool(self._told):
            self._record(Trouble(code=CODE, level="warning", message=own))
        self._told = own
        for peer, offset_s in finding.wrong.items():
            if peer not in self._warned:
                text = peer_clock_text(self._name_of(peer), offset_s, unclear=finding.unclear)
                self._record(Warned(code=CODE, message=text))
        self._warned = set(finding.wrong)
