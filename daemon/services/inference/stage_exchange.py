"""Keeps a node's directory of the stages of one model: it asks other nodes what they know.

A node asks a few peers every two seconds, tells them of its own stage, and takes in all that they
know. The DHT names further peers; so a node needs one address of the swarm, and no list.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from daemon.services.inference.stage_server import Refuse
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.system.trio_types import TaskStatus
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.inference.announcement import (
    MAX_STAGES,
    HeardStage,
    SignedAnnouncement,
    StageDirectory,
)
from protocol.messages.base import Hash
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

STAGES_PROTOCOL = "/hypergpu/inference/stages/1"
# Between two rounds of questions. A new stage is used after about as long.
EXCHANGE_S = 2.0
ASKED_AT_ONCE = 4
# Between two searches in the DHT, which cost a dozen messages.
SEARCH_S = 30.0
# Without any stage known, the search repeats sooner.
EAGER_SEARCH_S = 3.0
ANSWER_S = 5.0
REQUEST_BYTES = 2048
# Each stage takes about 400 bytes.
REPLY_BYTES = 1024 * (MAX_STAGES + 1)


class StagesRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Asks for the stages of a model, and tells of the asker's own."""

    model: Hash
    own: HeardStage | None = None


class StagesReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The stages that a node knows, with its own."""

    heard: Annotated[tuple[HeardStage, ...], Meta(max_length=MAX_STAGES + 1)]


class StageExchange:
    """Asks for stages, and answers those who ask."""

    def __init__(
        self,
        network: Network,
        directory: StageDirectory,
        refuse: Refuse,
        own: Callable[[], SignedAnnouncement | None] = lambda: None,
        rng: random.Random | None = None,
        answers: bool = True,
    ) -> None:
        """Register the protocol, if the node answers, on a network that has not started.

        Args:
            network: the network.
            directory: where announcements go.
            refuse: counts what was refused.
            own: returns a new announcement of this node's stage; None while it has none.
            rng: chooses whom to ask.
            answers: whether others may ask this node.
        """
        self._network, self._directory, self._refuse, self._own = network, directory, refuse, own
        self._rng = rng or random.Random()
        self._providers: list[PeerId] = []
        self._changed = trio.Event()
        if answers:
            network.serve(STAGES_PROTOCOL, self._answer)

    @property
    def model(self) -> Digest:
        return self._directory.model

    async def wait_for_news(self) -> None:
        """Wait until the directory has changed."""
        await self._changed.wait()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask and search, until cancelled."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._search)
            while True:
                self.ask_now(nursery)
                await trio.sleep(EXCHANGE_S)

    def ask_now(self, nursery: trio.Nursery) -> None:
        """Ask a few peers, in tasks of the nursery."""
        stages = {known.peer for known in self._directory.stages(trio.current_time())}
        # A neighbour may know stages, too, also before the DHT names one.
        linked = {link.peer for link in self._network.links()}
        known = (stages | set(self._providers) | (linked if not stages else set())) - {
            self._network.peer
        }
        for peer in self._rng.sample(sorted(known), min(ASKED_AT_ONCE, len(known))):
            nursery.start_soon(self._ask, peer)

    async def _search(self) -> None:
        while True:
            self._providers = await self._network.find_providers(self.model)
            known = self._directory.stages(trio.current_time())
            await trio.sleep(SEARCH_S if known else EAGER_SEARCH_S)

    async def _ask(self, peer: PeerId) -> None:
        request = StagesRequest(model=self.model, own=self._own_heard())
        try:
            with trio.move_on_after(ANSWER_S):
                stream = await self._network.open_stream(peer, STAGES_PROTOCOL)
                try:
                    await stream.send_all(frame(msgspec.msgpack.encode(request)))
                    data = await FrameReader(stream).expect_frame(REPLY_BYTES)
                finally:
                    await stream.aclose()
                self._take(peer, decode_as(StagesReply, data).heard)
        except Unreachable:
            # The peer's announcement grows old.
            pass
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))

    async def _answer(self, stream: ByteStream) -> None:
        data = await FrameReader(stream).expect_frame(REQUEST_BYTES)
        request = decode_as(StagesRequest, data)
        if request.own is not None and request.own.signed.peer != stream.peer:
            raise PeerFault("identity", "it brings the stage of another peer as its own")
        heard: tuple[HeardStage, ...] = ()
        if request.model == self.model:
            if request.own is not None:
                self._take(stream.peer, (request.own,))
            own = self._own_heard()
            heard = (*(() if own is None else (own,)), *self._directory.heard(trio.current_time()))
        await stream.send_all(frame(msgspec.msgpack.encode(StagesReply(heard=heard))))
        await stream.send_eof()

    def _own_heard(self) -> HeardStage | None:
        signed = self._own()
        return HeardStage(signed=signed, age_s=0.0) if signed is not None else None

    def _take(self, peer: PeerId, heard: tuple[HeardStage, ...]) -> None:
        news = 0
        for one in heard:
            if one.signed.peer == self._network.peer:
                continue
            # A refused announcement is its bringer's fault, and the others still count.
            try:
                news += self._directory.hear(one, trio.current_time(), peer)
            except PeerFault as fault:
                self._refuse(fault.reason, peer, str(fault))
        if news:
            self._changed.set()
            self._changed = trio.Event()
