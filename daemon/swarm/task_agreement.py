"""The tasks of other members, and where they differ from ours.

A node averages only with members that train the same task. Beacons and offers carry the name of
their sender's task. Another name than ours may still stand for the same task
(`protocol/run/task_digest.py`). So the description behind the name is fetched once, from a peer
that has it, and compared. The result holds for each peer with that name. Until then such
a peer is in no plan of ours.

Remembered names and peers are bounded, and so are requests: few at a time, and to one peer after a
pause.
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
# Names besides ours: versions of a task's code, and kinds of processors, in one run.
KNOWN_NAMES = 64
# Peers whose difference was recorded. Each is recorded once, until the peer has another task.
PEERS_RECORDED = 256
# Peers of which the time of the last request is remembered.
PEERS_ASKED = 256
# Differences recorded in RECORDED_S. Keys are free, and each could have a task of its own. Peers
# with another task are left out of plans, recorded or not.
MAX_RECORDED, RECORDED_S = 20, 60.0
# Between two requests to one peer, whatever names its beacons bring.
ASK_GAP_S = 10.0
# A silent peer holds its place for ANSWER_S. Descriptions of 4 x 1 MiB at most are under way.
ASKED_AT_ONCE = 4
ANSWER_S = 5.0
UNDESCRIBED = "its task has another name than ours, and it did not describe its task"


def serve_task(network: Network, ours: Callable[[], TaskDigest | None]) -> None:
    """Describe our task to peers that ask. Call this before the network starts."""

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

    An observer has no task, and accepts every task.
    """

    def __init__(self, record: Callable[[JournalEvent], None]) -> None:
        self._record = record
        self.ours: TaskDigest | None = None
        # The name of ours; empty while the worker starts.
        self.name = b""
        # By name; an empty difference means the same task.
        self._differences: OrderedDict[bytes, str] = OrderedDict()
        self._recorded: OrderedDict[PeerId, str] = OrderedDict()
        self._recorded_s: deque[float] = deque(maxlen=MAX_RECORDED)
        self._wanted: OrderedDict[PeerId, bytes] = OrderedDict()
        self._asked_s: OrderedDict[PeerId, float] = OrderedDict()
        self._more = trio.Event()

    def begin(self, ours: TaskDigest) -> None:
        """Note our own task, once the worker runs."""
        self.ours, self.name = ours, ours.name
        self._differences.clear()

    def differs(self, name: bytes) -> str | None:
        """The first difference of the task with that name; empty without one, None when unknown.

        A peer that names no task has no difference: its worker is starting.
        """
        if not name or not self.name or name == self.name:
            return ""
        return self._differences.get(name)

    def refusal(self, name: bytes) -> str:
        """Why an offer for the task with that name is refused; empty when it is accepted."""
        differs = self.differs(name)
        return (
            "its task has another name than ours and was not compared yet"
            if differs is None
            else differs
        )

    def heard(self, peer: PeerId, name: bytes) -> bool:
        """Note the task that a peer's beacon names. An unknown name is asked about.

        Returns:
            Whether the task agrees with ours.
        """
        differs = self.differs(name)
        if differs is None:
            if peer in self._wanted or len(self._wanted) < KNOWN_NAMES:
                self._wanted[peer] = name
                self._more.set()
            return False
        if name:
            self._report(peer, differs)
        return not differs

    def _report(self, peer: PeerId, differs: str) -> None:
        if self._recorded.get(peer, "") == differs:
            return
        now = trio.current_time()
        if len(self._recorded_s) == MAX_RECORDED and now - self._recorded_s[0] < RECORDED_S:
            # The peer's next beacon reports it again.
            return
        self._recorded_s.append(now)
        self._recorded.pop(peer, None)
        if differs:
            self._recorded[peer] = differs
        while len(self._recorded) > PEERS_RECORDED:
            self._recorded.popitem(last=False)
        self._record(TaskDiffers(peer=peer, difference=differs))

    # ---------------------------------------------------------------------------------- requests

    async def compare(
        self, network: Network, refuse: Refuse, compared: Callable[[bytes], None]
    ) -> None:
        """Fetch descriptions until cancelled; call `compared` with each name that is known."""
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
            # Another peer with that name was faster.
            return
        try:
            theirs = await fetch_task(network, peer)
        except Unreachable:
            # The next beacon of this peer, or of another one with that task, asks again.
            self._report(peer, UNDESCRIBED)
        except PeerFault as fault:
            refuse(fault.reason, peer, str(fault))
            self._report(peer, UNDESCRIBED)
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
        """Ask a new peer for its task, before anything of the peer is followed.

        Returns:
            False when the peer has another task. A peer that does not answer is followed, since
            its beacons and offers are checked anyway.
        """
        if self.ours is None:
            return True
        try:
            theirs = await fetch_task(network, peer)
        except (Unreachable, PeerFault):
            return True
        differs = "" if theirs.name == self.name else self._learn(theirs)
        self._report(peer, differs)
        return not differs
