"""Downloads verified bytes from several holders at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import trio

from daemon.swarm.piece_download import PieceDownload
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, short
from protocol.ports.network import Network

# At home an uplink is a fifth of a downlink. Five peers fill the downlink, and one of them may give
# nothing.
PEERS_AT_ONCE = 6
# Attempts with each peer that gives nothing.
ATTEMPTS = 5
# Between attempts with one peer, long enough for the peer to come to hold the state.
RETRY_S = 2.0
# A download without verified bytes for this long has failed. No peer may take longer for a chunk.
SILENT_S = 40.0


async def download_from(
    network: Network,
    download: PieceDownload,
    holders: Callable[[], Sequence[PeerId]],
    refuse: Callable[[str, PeerId, str], None],
    attempts: int = ATTEMPTS,
) -> str:
    """Complete a download from several holders at once.

    Connected holders come first, each group in the order of `holders`: a connection that does not
    come about costs seconds. `holders` is called again whenever a peer has ended. A peer that fails
    is tried again after others. The download goes on while verified bytes arrive.

    Returns:
        Why the download failed; empty when it is complete.
    """
    reasons: dict[PeerId, str] = {}
    failures: Counter[PeerId] = Counter()
    not_before: dict[PeerId, float] = {}
    busy: set[PeerId] = set()
    ended = trio.Event()

    async def one(peer: PeerId) -> None:
        try:
            await download.from_peer(network, peer)
        except Unreachable as error:
            reasons[peer] = str(error)
        except PeerFault as fault:
            refuse(fault.reason, peer, str(fault))
            reasons[peer] = str(fault)
            failures[peer] = attempts
        failures[peer] += 1
        not_before[peer] = trio.current_time() + RETRY_S
        busy.discard(peer)
        ended.set()

    async with trio.open_nursery() as nursery:
        while not download.done and trio.current_time() < download.advanced_at + SILENT_S:
            ended = trio.Event()
            able = [peer for peer in holders() if failures[peer] < attempts]
            connected = {link.peer for link in network.links()}
            able.sort(key=lambda peer: peer not in connected)
            if not able and not busy:
                break
            free = [
                peer
                for peer in able
                if peer not in busy and trio.current_time() >= not_before.get(peer, 0.0)
            ]
            for peer in free[: PEERS_AT_ONCE - len(busy)]:
                busy.add(peer)
                nursery.start_soon(one, peer)
            with trio.move_on_after(RETRY_S):
                await ended.wait()
        nursery.cancel_scope.cancel()
    if download.done:
        return ""
    return (
        "; ".join(f"{short(peer)}: {why}" for peer, why in reasons.items())
        or "no peer is known to hold it"
    )
