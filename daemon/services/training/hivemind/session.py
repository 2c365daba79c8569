"""The hivemind process's conversation with its node, on the main thread. hivemind's own processes
and threads do the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import msgspec
import numpy as np

from daemon.children import memory
from daemon.children.messages import Done, Message
from daemon.services.training.hivemind.averaging import (
    AveragingFailed,
    HivemindPeer,
    VectorAverager,
)
from daemon.services.training.hivemind.messages import (
    Average,
    Averaged,
    Begin,
    Command,
    Download,
    Downloaded,
    Failed,
    Meet,
    Said,
    Share,
    Up,
)
from daemon.services.training.hivemind.observed import Told, untold


class Session:
    """One life of the process.

    `run` ends when the node is gone, and then only by the end of the process.
    """

    def __init__(
        self,
        inbox: SimpleQueue[Command],
        send: Callable[[Message], None],
        memory_fd: int,
        sockets: str,
        told: Told = untold,
    ) -> None:
        self._inbox = inbox
        self._send = send
        self._memory_fd = memory_fd
        self._sockets = sockets
        self._told = told

    def run(self) -> None:
        begin = self._inbox.get()
        if not isinstance(begin, Begin):
            raise TypeError(f"the first command is Begin, not {type(begin).__name__}")
        counts = (begin.elements,) * 3
        memory.give_size(self._memory_fd, counts)
        self._vector, self._anchor, self._momentum = memory.map_vectors(self._memory_fd, counts)
        with HivemindPeer(msgspec.structs.replace(begin.peer, sockets=self._sockets)) as peer:
            averager = peer.averager(begin.elements, begin.averager, told=self._told)
            self._send(Up(id=begin.id, peer=peer.id, maddrs=peer.maddrs))
            while True:
                self._send(self._obey(self._inbox.get(), peer, averager))

    def _obey(self, command: Command, peer: HivemindPeer, averager: VectorAverager) -> Message:
        match command:
            case Meet(id=number, maddrs=maddrs):
                return self._meet(number, maddrs, peer)
            case Average():
                return self._average(command, averager)
            case Share(id=number, number=round_number):
                averager.share_state(round_number, (self._anchor, self._momentum))
                return Done(id=number)
            case Download(id=number):
                return self._download(number, averager)
            case Begin(id=number):
                return Failed(id=number, why="it has begun already")

    def _meet(self, number: int, maddrs: tuple[str, ...], peer: HivemindPeer) -> Message:
        try:
            return Done(id=number) if peer.meet(maddrs) else Failed(id=number, why="no answer")
        except ValueError as error:
            return Failed(id=number, why=str(error))

    def _average(self, command: Average, averager: VectorAverager) -> Message:
        averager.write(self._vector)
        averager.aim_at(command.group_size)
        attempt = averager.begin(
            weight=command.weight,
            timeout_s=command.find_s,
            gather=msgspec.to_builtins(command.said),
        )
        try:
            matchmaking_s = attempt.wait_for_group(command.find_s)
            outcome = attempt.average()
        except AveragingFailed as failed:
            return Failed(id=command.id, why=str(failed))
        finally:
            # After a failure too: whatever hivemind left there.
            averager.read(into=self._vector)
        said = []
        for word in outcome.gathered.values():
            try:
                said.append(msgspec.convert(word, Said))
            except msgspec.ValidationError:
                # Another program's averager: it counts in the group, and has nothing to say to us.
                continue
        return Averaged(
            id=command.id,
            group=len(outcome.group),
            said=tuple(said),
            elements=outcome.elements,
            local_elements=outcome.local_elements,
            missing_senders=len(outcome.missing_senders),
            parts_expected=outcome.parts_expected,
            parts_summed=outcome.parts_summed,
            matchmaking_s=matchmaking_s,
            all_reduce_s=outcome.all_reduce_s,
        )

    def _download(self, number: int, averager: VectorAverager) -> Message:
        got = averager.download_state()
        if got is None:
            return Failed(id=number, why="no peer gave its state")
        round_number, vectors = got
        fit = [
            vector
            for vector in vectors
            if vector.shape == self._anchor.shape
            and vector.dtype == np.float32
            and np.isfinite(vector).all()
        ]
        if len(fit) != 2 or len(vectors) != 2:
            return Failed(id=number, why="a peer's state is not of this model, or not finite")
        self._anchor[:], self._momentum[:] = fit
        return Downloaded(id=number, number=round_number)
