"""One hivemind peer: its DHT, its averager of one float32 vector, and averaging rounds in which
matchmaking and all-reduce are timed apart.

Runs inside a process that imports neither libp2p nor trio, on that process's main thread (hivemind
sets a signal handler). How to call it, in each of N processes:

    with HivemindPeer(PeerSettings()) as peer:
        tell everybody peer.maddrs; peer.meet(maddrs of the others)          # once; or PeerSettings(initial_peers=...)
        averager = peer.averager(elements, AveragerSettings(prefix="bench", compression="float16", group_size=N))
        averager.write(vector)                                               # float32, shape (elements,)
        attempt = averager.begin(weight=1.0, timeout_s=60.0)                 # matchmaking, in the background
        seconds = attempt.wait_for_group(30.0)                               # the group is formed and waits
        ... a barrier of yours between the processes ...
        outcome = attempt.average()                                          # all-reduce; raises AveragingFailed
        averager.read(into=vector)                                           # the mean, if outcome.whole

hivemind's success is no proof: `AllReduceOutcome` says what it counted. Children that hivemind forks die
with this process; `p2pd` belongs to this process's group, so whoever starts this process gives it a
session of its own and ends the group.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

import hivemind
import msgspec
import numpy as np
import torch
from hivemind import compression as codecs
from hivemind.averaging.control import AveragingStage, StepControl
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.multiaddr.exceptions import Error as MultiaddrError
from hivemind.utils.timed_storage import get_dht_time

from daemon.services.training.hivemind.observed_averager import (
    ObservedAverager,
    ObservedDHT,
    OnMoment,
    ignore_moment,
)
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings
from protocol.averaging.vector_layout import Vector

CODECS: dict[str, type[codecs.CompressionBase]] = {
    "none": codecs.NoCompression,
    "float16": codecs.Float16Compression,
    "scaled_float16": codecs.ScaledFloat16Compression,
    "uniform8": codecs.Uniform8BitQuantization,
    "quantile8": codecs.Quantile8BitQuantization,
    "blockwise8": codecs.BlockwiseQuantization,
}

# For another peer's state; a slow one is given up and asked again at the next round.
DOWNLOAD_S = 60.0
# Between looks at the stage of an attempt, which is one byte of shared memory.
POLL_S = 0.002
# To connect to one peer: hivemind's own limit for a call is 3 s, a relayed connection takes a few
# calls.
MEET_S = 10.0


class AveragingFailed(Exception):
    """hivemind found no group, or gave the round up; the vector may be anything."""


class AllReduceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A round that hivemind calls a success, from the view of one member.

    It does not know what other reducers left out of their sums.
    """

    # Hivemind peer ids, whatever became of them.
    group: tuple[str, ...]
    gathered: dict[str, Any]  # what each of them gave to `begin`
    elements: int
    # Of them, how many are our own values because a reducer failed.
    local_elements: int
    # Members whose values are missing in a part of the slice summed here.
    missing_senders: tuple[str, ...]
    parts_expected: int  # in our slice
    parts_summed: int
    # From the trigger to the result, as the caller sees it.
    all_reduce_s: float
    # The same inside the averager's process, without the way there and back.
    inside_s: float

    @property
    def whole(self) -> bool:
        """Whether hivemind, as far as this member sees, averaged every value of every member of the
        group.
        """
        return (
            not self.local_elements
            and not self.missing_senders
            and self.parts_summed == self.parts_expected
        )


class AveragingAttempt:
    """One round on its way."""

    def __init__(self, control: StepControl) -> None:
        self._control = control
        self._began = time.monotonic()

    def wait_for_group(self, timeout_s: float) -> float:
        """Wait until a group is formed.

        Returns the seconds of matchmaking. Raises `AveragingFailed`, after which the attempt is
        over.
        """
        deadline = self._began + timeout_s
        while self._control.stage is not AveragingStage.AWAITING_TRIGGER:
            if self._control.done():
                raise AveragingFailed(f"no group: {self._control.exception()!r}")
            if time.monotonic() > deadline:
                self.cancel()
                raise AveragingFailed(f"no group within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic() - self._began

    def average(self) -> AllReduceOutcome:
        """Begin the all-reduce and wait for its end. Raises `AveragingFailed`."""
        began = time.monotonic()
        self._control.allow_allreduce()
        try:
            told = self._control.result()
        except BaseException as error:
            # The future of another process carries whatever was raised there, cancellation too.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise AveragingFailed(str(error) or repr(error)) from None
        return AllReduceOutcome(
            group=tuple(told["gathered"]),
            gathered=told["gathered"],
            elements=told["elements"],
            local_elements=told["local_elements"],
            missing_senders=tuple(told["missing_senders"]),
            parts_expected=told["parts_expected"],
            parts_summed=told["parts_summed"],
            all_reduce_s=time.monotonic() - began,
            inside_s=told["seconds"],
        )

    def cancel(self) -> None:
        """Give it up."""
        if not self._control.done():
            self._control.cancel()


class VectorAverager:
    """An averager of one vector, in a process that hivemind forks.

    The vector lives in memory that both share, which has no name.
    """

    def __init__(
        self, dht: hivemind.DHT, elements: int, settings: AveragerSettings, told: OnMoment
    ) -> None:
        self._tensor = torch.zeros(elements, dtype=torch.float32)
        self._averager = ObservedAverager(
            [self._tensor],
            dht,
            told=told,
            start=True,
            prefix=settings.prefix,
            compression=CODECS[settings.compression](),
            target_group_size=settings.group_size,
            min_group_size=settings.min_group_size,
            min_matchmaking_time=settings.matchmaking_s,
            request_timeout=settings.request_s,
            sender_timeout=settings.chunk_s,
            allreduce_timeout=settings.all_reduce_s,
            allow_state_sharing=False,  # until there is a state
        )

    def aim_at(self, group_size: int) -> None:
        """From the next `begin` on, a group of so many is full and begins at once."""
        self._averager.aim_at(group_size)

    def write(self, vector: Vector) -> None:
        """What this member gives, float32, shape (elements,)."""
        self._tensor.numpy()[:] = vector

    def read(self, *, into: Vector) -> None:
        """What the last round left: the mean, or what `write` gave where it failed."""
        np.copyto(into, self._tensor.numpy())

    def begin(
        self,
        *,
        weight: float,
        timeout_s: float,
        gather: object = None,
        after_s: float | None = None,
    ) -> AveragingAttempt:
        """Look for a group.

        `weight` counts in the mean, `gather` (plain values) reaches every member. `after_s` tells
        the others when the all-reduce is expected to begin; without it, after the matchmaking time.
        `timeout_s` is for finding a group.

        There is no second try: `hivemind.Optimizer` makes none either.
        """
        control = self._averager.step(
            gather=gather,
            scheduled_time=None if after_s is None else get_dht_time() + after_s,
            weight=weight,
            timeout=timeout_s,
            allow_retries=False,
            require_trigger=True,
            wait=False,
        )
        return AveragingAttempt(control)

    def share_state(self, number: int, vectors: Sequence[Vector]) -> None:
        """From now on give whoever asks a copy of these vectors, as of round `number`; those
        furthest ahead are asked first.
        """
        self._averager.share_state(number, [torch.tensor(vector) for vector in vectors])

    def download_state(self) -> tuple[int, list[Vector]] | None:
        """Some peer's state, whose values are its own word; None when nobody gives one."""
        future = self._averager.load_state_from_peers(wait=False)
        try:
            got = future.result(timeout=DOWNLOAD_S)
        except TimeoutError:
            return None
        if (
            got is None
            or not isinstance(got[0], dict)
            or not isinstance(number := got[0].get("number"), int)
        ):
            return None
        return number, [tensor.numpy() for tensor in got[1]]

    def close(self) -> None:
        self._averager.shutdown()


class HivemindPeer:
    """A DHT node with its averagers; a context manager, inside which everything runs."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> HivemindPeer:
        given = self._settings
        multiprocessing.set_start_method(
            "fork",
            force=True,
            # What hivemind is written for; a process spawned by `multiprocessing` would spawn.
        )
        if given.sockets:
            P2P._UNIX_SOCKET_PREFIX = f"/unix{given.sockets}/"
        self.dht = ObservedDHT(
            start=True,
            initial_peers=given.initial_peers,
            host_maddrs=given.listen,
            announce_maddrs=given.announce or None,
            client_mode=given.client_mode,
            nat_port_map=given.through_nat,
            auto_nat=given.through_nat,
            use_relay=given.through_nat,
            use_auto_relay=given.through_nat,
            ensure_bootstrap_success=False,
        )
        self._stack.callback(self.dht.shutdown)
        self.id: str = self.dht.peer_id.to_base58()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def maddrs(self) -> tuple[str, ...]:
        """Where others reach this peer, as the daemon knows it now."""
        return tuple(str(maddr) for maddr in self.dht.get_visible_maddrs(latest=True))

    def meet(self, maddrs: Sequence[str]) -> bool:
        """Connect to one other peer, and enter each other's routing table.

        Returns whether it answered.

        Raises `ValueError` for what is no address.
        """
        # The last: a relayed address names the relay before.
        split = [maddr.rpartition("/p2p/") for maddr in maddrs]
        peers = {peer for _, _, peer in split}
        if len(peers) != 1:
            raise ValueError(f"addresses of {len(peers)} peers, not of one")
        try:
            peer, directions = (
                PeerID.from_base58(peers.pop()),
                [Multiaddr(direction) for direction, _, _ in split],
            )
        except MultiaddrError as error:
            raise ValueError(f"no address: {error}") from None
        try:
            return bool(
                self.dht.run_coroutine(
                    partial(_meet, peer=peer, maddrs=directions), return_future=True
                ).result(MEET_S)
            )
        except TimeoutError:
            return False

    def averager(
        self, elements: int, settings: AveragerSettings, *, told: OnMoment = ignore_moment
    ) -> VectorAverager:
        """An averager of a vector of `elements` float32, closed with this peer.

        `told` is called in its process, at each moment of its rounds.
        """
        averager = VectorAverager(self.dht, elements, settings, told)
        self._stack.callback(averager.close)
        return averager


async def _meet(
    _dht: hivemind.DHT, node: DHTNode, *, peer: PeerID, maddrs: list[Multiaddr]
) -> bool:
    """Runs in the DHT's process."""
    try:
        await node.p2p._client.connect(peer, maddrs)
    except hivemind.p2p.P2PDaemonError:
        return False
    return await node.protocol.call_ping(peer) is not None
