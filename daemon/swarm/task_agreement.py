"""Which task the other members have, and where it differs from ours: a node averages with those
alone that train the same.

Beacons and offers carry the name of their sender's task. A name that is ours needs nothing more.
Another one may still stand for the same task (`protocol/run/task_digest.py`), so the description behind
it is asked for once, from a peer that has it, and compared; what came of it holds for each peer
with that name. Until then such a peer is not planned with.

Bounded: names and peers that were told are remembered for so many, one peer is asked every so many
seconds, few at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.messenger import Refuse
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.journal import JournalEvent, TaskDiffers
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.run.task_digest import (
    MAX_TASK_BYTES,
    TaskDigest,
    decode_task,
    difference,
    encode_task,
)

PROTOCOL = "/hypergpu/task/1"
# Besides ours: versions of a task's code and kinds of processors in one run.
KNOWN_NAMES = 64
# For which a difference was told: each is told once, until it has another task.
PEERS_TOLD = 256
# Of which it is remembered when they were asked.
PEERS_ASKED = 256
# Differences told in TOLD_S: keys are free to make, and each could have a task of its own. All are
# left out, told or not.
TOLD_AT_MOST, TOLD_S = 20, 60.0
# Between two questions to one peer, whatever names its beacons bring.
ASK_GAP_S = 10.0
# A silent peer holds its place for ANSWER_S; descriptions of 4 x 1 MiB at most are under way.
ASKED_AT_ONCE = 4
ANSWER_S = 5.0
UNDESCRIBED = "its task has another name than ours, and it did not say what it is"


def serve_task(network: Network, ours: Callable[[], TaskDigest | None]) -> None:
    """Describe our task to a peer that asks. Before the network starts."""

    async def answer(stream: ByteStream) -> None:
        task = ours()
        if task is not None:
            await stream.send_all(frame(encode_task(task)))
        await stream.send_eof()

    network.serve(PROTOCOL, answer)


async def fetch_task(network: Network, peer: PeerId) -> TaskDigest:
    """A peer's description of its task. Raises `Unreachable` or `PeerFault`."""
    with trio.move_on_after(ANSWER_S):
        stream = await network.open_stream(peer, PROTOCOL)
        try:
            return decode_task(await FrameReader(stream).expect_frame(MAX_TASK_BYTES))
        finally:
            await stream.aclose()
    raise Unreachable(f"no description of its task within {ANSWER_S:g} s")


class TaskAgreement:
    """One node's knowledge of the others' tasks.

    An observer has no task of its own, and every task is right to it.
    """

    def __init__(self, record: Callable[[JournalEvent], None]) -> None:
        self._record = record
        self.ours: TaskDigest | None = None
        self.name = b""  # of ours; empty while the worker starts
        # By name; empty for the same task.
        self._differences: OrderedDict[bytes, str] = OrderedDict()
        self._told: OrderedDict[PeerId, str] = OrderedDict()
        self._told_s: deque[float] = deque(maxlen=TOLD_AT_MOST)
        self._wanted: OrderedDict[PeerId, bytes] = OrderedDict()
        self._asked_s: OrderedDict[PeerId, float] = OrderedDict()
        self._more = trio.Event()

    def begin(self, ours: TaskDigest) -> None:
        """The worker is up, and says what its task is."""
        self.ours, self.name = ours, ours.name
        self._differences.clear()

    def differs(self, name: bytes) -> str | None:
        """The first difference of the task with that name; empty where there is none, None where it
        is not known yet.

        A peer that names no task says nothing wrong: its worker is starting.
        """
        if not name or not self.name or name == self.name:
            return ""
        return self._differences.get(name)

    def refusal(self, name: bytes) -> str:
        """Why an offer for the task with that name is not taken; empty where it is."""
        differs = self.differs(name)
        return (
            "its task has another name than ours and was not compared yet"
            if differs is None
            else differs
        )

    def heard(self, peer: PeerId, name: bytes) -> bool:
        """A beacon of `peer` names its task.

        Returns whether the two agree; asks about a name that is not known.
        """
        differs = self.differs(name)
        if differs is None:
            if peer in self._wanted or len(self._wanted) < KNOWN_NAMES:
                self._wanted[peer] = name
                self._more.set()
            return False
        if name:
            self._tell(peer, differs)
        return not differs

    def _tell(self, peer: PeerId, differs: str) -> None:
        if self._told.get(peer, "") == differs:
            return
        now = trio.current_time()
        if len(self._told_s) == TOLD_AT_MOST and now - self._told_s[0] < TOLD_S:
            return  # its next beacon comes here again
        self._told_s.append(now)
        self._told.pop(peer, None)
        if differs:
            self._told[peer] = differs
        while len(self._told) > PEERS_TOLD:
            self._told.popitem(last=False)
        self._record(TaskDiffers(peer=peer, difference=differs))

    # ------------------------------------------------------------------------------------------ asking

    async def compare(
        self, network: Network, refuse: Refuse, compared: Callable[[bytes], None]
    ) -> None:
        """Ask for what is wanted, and call `compared` with each name that is known then.

        Until cancelled.
        """
        places = trio.Semaphore(ASKED_AT_ONCE)

        async def ask(peer: PeerId, name: bytes) -> None:
            async with places:
                await self._ask(network, refuse, peer, name)
            if self.differs(name) is not None:
                compared(name)

        async with trio.open_nursery() as nursery:
            while True:
                await self._more.wait()
                self._more = trio.Event()
                wanted, self._wanted = self._wanted, OrderedDict()
                for peer, name in wanted.items():
                    if self.differs(name) is None and self._may_ask(peer):
                        nursery.start_soon(ask, peer, name)

    def _may_ask(self, peer: PeerId) -> bool:
        now = trio.current_time()
        if now - self._asked_s.get(peer, -ASK_GAP_S) < ASK_GAP_S:
            return False
        self._asked_s.pop(peer, None)
        self._asked_s[peer] = now
        while len(self._asked_s) > PEERS_ASKED:
            self._asked_s.popitem(last=False)
        return True

    async def _ask(self, network: Network, refuse: Refuse, peer: PeerId, name: bytes) -> None:
        if self.differs(name) is not None:
            return  # another peer with that name was faster
        try:
            theirs = await fetch_task(network, peer)
        except Unreachable:
            # Its next beacon asks again, and so does that of each peer with the same task.
            self._tell(peer, UNDESCRIBED)
        except PeerFault as fault:
            refuse(fault.reason, peer, str(fault))
            self._tell(peer, UNDESCRIBED)
        else:
            if theirs.name == name:
                self._learn(theirs)

    def _learn(self, theirs: TaskDigest) -> str:
        if self.ours is None:
            return ""
        differs = difference(self.ours, theirs)
        self._differences[theirs.name] = differs
        while len(self._differences) > KNOWN_NAMES:
            self._differences.popitem(last=False)
        return differs

    async def greet(self, network: Network, peer: PeerId) -> bool:
        """Ask a peer that was just connected what its task is, before anything of it is followed.

        False where it is another.

        A peer that does not answer is followed: its beacons and offers are looked at anyway.
        """
        if self.ours is None:
            return True
        try:
            theirs = await fetch_task(network, peer)
        except (Unreachable, PeerFault):
            return True
        differs = "" if theirs.name == self.name else self._learn(theirs)
        self._tell(peer, differs)
        return not differs
