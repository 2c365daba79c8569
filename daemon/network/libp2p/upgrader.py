"""Upgrades a TCP connection to Noise and to our yamux, and offers nothing else."""

from __future__ import annotations

from typing import Any

from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID
from libp2p.transport.upgrader import TransportUpgrader

from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.libp2p.unread_bytes import UnreadBytes


class _Muxers(MuxerMultistream):
    """Negotiates yamux and makes our class. The library always makes its own class."""

    unread_in_all: UnreadBytes

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        muxed = MeasuredYamux(conn, peer_id, conn.is_initiator, self.unread_in_all)
        return self._annotate_connection(muxed, conn, protocol)


class YamuxUpgrader(TransportUpgrader):
    """The library's upgrader with Noise and our yamux."""

    def __init__(self, noise: Any, negotiate_timeout_s: int, unread_in_all: UnreadBytes) -> None:
        super().__init__({"/noise": noise}, {}, negotiate_timeout_s)  # type: ignore[dict-item]
        ours: Any = {PROTOCOL_ID: MeasuredYamux}
        muxers = _Muxers(ours, negotiate_timeout_s)
        muxers.unread_in_all = unread_in_all
        self.muxer_multistream = muxers
