"""Obeys the node's commands in the hivemind process, on its main thread.

hivemind's own processes and threads do the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import msgspec
import numpy as np

from daemon.children import memory
from daemon.children.messages import ChildMessage, CommandDone
from daemon.services.training.hivemind.averager import AveragingFailed, VectorAverager
from daemon.services.training.hivemind.hivemind_peer import HivemindPeer
from daemon.services.training.hivemind.messages import (
    AverageVector,
    CommandFailed,
    ConnectPeer,
    DownloadState,
    HivemindCommand,
    MemberInfo,
    PeerReady,
    ShareState,
    StartPeer,
    StateDownloaded,
    VectorAveraged,
)
from daemon.services.training.hivemind.observed_averager import OnMoment, ignore_moment


class HivemindCommandLoop:
    """Answers each command of the node once.

    `run` never returns: the process ends when the node does.
    """

    def __init__(
        self,
        inbox: SimpleQueue[HivemindCommand],
        send: Callable[[ChildMessage], None],
        memory_fd: int,
        sockets: str,
        on_moment: OnMoment = ignore_moment,
    ) -> None:
        self._inbox = inbox
        self._send = send
        self._memory_fd = memory_fd
        self._sockets = sockets
        self._on_moment = on_moment

    def run(self) -> None:
        """Start the peer as the first command says, then obey every later command."""
        begin = self._inbox.get()
        if not isinstance(begin, StartPeer):
            raise TypeError(f"the first command must be StartPeer, not {type(begin).__name__}")
        counts = (begin.elements,) * 3
        memory.give_size(self._memory_fd, counts)
        self._vector, self._anchor, self._momentum = memory.map_vectors(self._memory_fd, counts)
        with HivemindPeer(msgspec.structs.replace(begin.peer, sockets=self._sockets)) as peer:
            averager = peer.averager(begin.elements, begin.averager, on_moment=self._on_moment)
            self._send(PeerReady(id=begin.id, peer=peer.id, maddrs=peer.maddrs))
            while True:
                self._send(self._obey(self._inbox.get(), peer, averager))

    def _obey(
        self, command: HivemindCommand, peer: HivemindPeer, averager: VectorAverager
    ) -> ChildMessage:
        match command:
            case ConnectPeer(id=number, maddrs=maddrs):
                return self._connect(number, maddrs, peer)
            case AverageVector():
                return self._average(command, averager)
            case ShareState(id=number, number=round_number):
                averager.share_state(round_number, (self._anchor, self._momentum))
                return CommandDone(id=number)
            case DownloadState(id=number):
                return self._download(number, averager)
            case StartPeer(id=number):
                return CommandFailed(id=number, why="the hivemind peer runs already")

    def _connect(self, number: int, maddrs: tuple[str, ...], peer: HivemindPeer) -> ChildMessage:
        try:
            return (
                CommandDone(id=number)
                if peer.connect(maddrs)
                else CommandFailed(id=number, why="no answer")
            )
        except ValueError as error:
            return CommandFailed(id=number, why=str(error))

    def _average(self, command: AverageVector, averager: VectorAverager) -> ChildMessage:
        averager.write(self._vector)
        averager.aim_at(command.group_size)
        attempt = averager.begin(
            weight=command.weight,
            timeout_s=command.find_s,
            gather=msgspec.to_builtins(command.info),
        )
        try:
            matchmaking_s = attempt.wait_for_group(command.find_s)
            outcome = attempt.average()
        except AveragingFailed as failed:
            return CommandFailed(id=command.id, why=str(failed))
        finally:
            # After a failure too: the node gets what hivemind left.
            averager.read(into=self._vector)
        members = []
        for gathered in outcome.gathered.values():
            try:
                members.append(msgspec.convert(gathered, MemberInfo))
            except msgspec.ValidationError:
                # Another program's averager counts in the group, but sends no `MemberInfo`.
                continue
        return VectorAveraged(
            id=command.id,
            group=len(outcome.group),
            members=tuple(members),
            elements=outcome.elements,
            local_elements=outcome.local_elements,
            missing_senders=len(outcome.missing_senders),
            parts_expected=outcome.parts_expected,
            parts_summed=outcome.parts_summed,
            matchmaking_s=matchmaking_s,
            all_reduce_s=outcome.all_reduce_s,
        )

    def _download(self, number: int, averager: VectorAverager) -> ChildMessage:
        got = averager.download_state()
        if got is None:
            return CommandFailed(id=number, why="no peer sent its state")
        round_number, vectors = got
        fit = [
            vector
            for vector in vectors
            if vector.shape == self._anchor.shape
            and vector.dtype == np.float32
            and np.isfinite(vector).all()
        ]
        if len(fit) != 2 or len(vectors) != 2:
            return CommandFailed(
                id=number, why="a peer's state belongs to another model or is not finite"
            )
        self._anchor[:], self._momentum[:] = fit
        return StateDownloaded(id=number, number=round_number)
