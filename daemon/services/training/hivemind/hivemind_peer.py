"""One hivemind peer: its DHT and its averagers.

It runs in a process that imports neither libp2p nor trio, on that process's main thread, because
hivemind sets a signal handler. In each of N processes:

    with HivemindPeer(PeerSettings()) as peer:
        # Exchange `peer.maddrs`, then call `peer.connect` with each other peer's addresses.
        averager = peer.averager(elements, AveragerSettings(prefix="bench", group_size=N))
        averager.write(vector)                              # float32, shape (elements,)
        attempt = averager.begin(weight=1.0, timeout_s=60.0)    # matchmaking, in the background
        seconds = attempt.wait_for_group(30.0)              # the group is formed and waits
        outcome = attempt.average()                         # all-reduce; raises AveragingFailed
        averager.read(into=vector)                          # the mean, if outcome.whole

The children that hivemind forks end with this process. `p2pd` belongs to this process's group:
start this process in a session of its own, and end the group.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import hivemind
from hivemind.dht.node import DHTNode
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.multiaddr.exceptions import Error as MultiaddrError

from daemon.services.training.hivemind.averager import VectorAverager
from daemon.services.training.hivemind.observed_averager import (
    ObservedDHT,
    OnMoment,
    ignore_moment,
)
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings

# To connect to one peer. hivemind limits each call to 3 s; a relayed connection takes a few calls.
CONNECT_S = 10.0


class HivemindPeer:
    """A DHT node with its averagers. A context manager, inside which everything runs."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> HivemindPeer:
        given = self._settings
        # hivemind is written for "fork". A process that `multiprocessing` spawned would spawn.
        multiprocessing.set_start_method("fork", force=True)
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
        """The addresses of this peer that its daemon knows now."""
        return tuple(str(maddr) for maddr in self.dht.get_visible_maddrs(latest=True))

    def connect(self, maddrs: Sequence[str]) -> bool:
        """Connect to one other peer; each enters the other's routing table.

        Returns whether the peer answered. Raises `ValueError` for an invalid address.
        """
        # Split at the last "/p2p/": a relayed address names the relay first.
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
                    partial(_connect, peer=peer, maddrs=directions), return_future=True
                ).result(CONNECT_S)
            )
        except TimeoutError:
            return False

    def averager(
        self, elements: int, settings: AveragerSettings, *, on_moment: OnMoment = ignore_moment
    ) -> VectorAverager:
        """Return an averager of `elements` float32, which closes with this peer.

        hivemind calls `on_moment` in the averager's process, at each moment of its rounds.
        """
        averager = VectorAverager(self.dht, elements, settings, on_moment)
        self._stack.callback(averager.close)
        return averager


async def _connect(
    _dht: hivemind.DHT, node: DHTNode, *, peer: PeerID, maddrs: list[Multiaddr]
) -> bool:
    """Connect in the DHT's process."""
    try:
        await node.p2p._client.connect(peer, maddrs)
    except hivemind.p2p.P2PDaemonError:
        return False
    return await node.protocol.call_ping(peer) is not None
