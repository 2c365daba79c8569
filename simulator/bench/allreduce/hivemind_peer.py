"""hivemind's averager in one peer, as the hivemind engine uses it.

The process imports neither libp2p nor trio.
"""

from __future__ import annotations

import time

import numpy as np

from daemon.services.training.hivemind.averager import (
    AveragingAttempt,
    AveragingFailed,
    VectorAverager,
)
from daemon.services.training.hivemind.hivemind_peer import HivemindPeer
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings
from protocol.averaging.vector_layout import Vector
from simulator.bench.allreduce.driver import (
    AveragingFailure,
    CommandPipe,
    DriverSettings,
    GroupMissing,
    at_once,
    serve,
)
from simulator.bench.allreduce.wire import Command

COMPRESSION = {"float32": "none", "float16": "float16", "int8": "uniform8"}
MEET_S, MEET_PAUSE_S = 30.0, 0.5
# To form a group: 5 s of matchmaking, and again when a peer came late.
GROUP_S = 30.0


class HivemindDriver:
    """hivemind in one peer. Matchmaking is preparation: only the all-reduce is timed."""

    def __init__(self, settings: DriverSettings, peer: HivemindPeer) -> None:
        self._settings, self._peer = settings, peer
        self._averager: VectorAverager | None = None
        self._attempt: AveragingAttempt | None = None
        self._mean: Vector = np.empty(settings.elements, np.float32)

    async def info(self) -> str:
        return " ".join(self._peer.maddrs)

    async def meet(self, infos: tuple[str, ...]) -> None:
        for index, info in enumerate(infos):
            if index != self._settings.index:
                self._meet(index, info)
        self._averager = self._peer.averager(
            self._settings.elements,
            AveragerSettings(
                prefix=f"bench{self._settings.codec}",
                compression=COMPRESSION[self._settings.codec],
                group_size=self._settings.peers,
            ),
        )

    def _meet(self, index: int, info: str) -> None:
        """Call a peer until it answers: two that call each other at once can both fail."""
        last = time.monotonic() + MEET_S
        while not self._peer.connect(info.split()):
            if time.monotonic() > last:
                raise RuntimeError(f"hivemind peer {index} did not answer at {info}")
            time.sleep(MEET_PAUSE_S)

    async def prepare(self, number: int, vector: Vector) -> None:
        assert self._averager is not None
        self._averager.write(vector)
        self._mean[:] = np.nan
        self._attempt = self._averager.begin(weight=1.0, timeout_s=GROUP_S)
        try:
            self._attempt.wait_for_group(GROUP_S)
        except AveragingFailed:
            # `average` reports the failure.
            self._attempt = None

    async def average(self) -> None:
        if self._attempt is None:
            raise GroupMissing(f"no group formed within {GROUP_S:.0f} s")
        assert self._averager is not None
        try:
            outcome = self._attempt.average()
        except AveragingFailed as failed:
            raise AveragingFailure(str(failed)) from None
        if len(outcome.group) != self._settings.peers or not outcome.whole:
            raise AveragingFailure(
                f"a group of {len(outcome.group)}, with {outcome.local_elements} local elements"
            )
        self._averager.read(into=self._mean)

    async def result(self) -> Vector:
        return self._mean


def run(pipe: CommandPipe, settings: DriverSettings) -> None:
    with HivemindPeer(PeerSettings(listen=(f"/ip4/{settings.host}/tcp/0",))) as peer:

        async def following() -> Command | None:
            return pipe.next()

        at_once(serve(pipe, settings, HivemindDriver(settings, peer), following))
