"""The addresses at which a peer may be called now, and what each try costs."""

from __future__ import annotations

from daemon.network.addresses import PeerAddress
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.dial_policy import SOURCE_TRIES_AT_ONCE
from daemon.network.peers.dial_targets import DialTargets
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.peer_record import seal_record
from protocol.identity import Signer
from protocol.ports.endpoint import Endpoint

OWN, PEER = Signer(bytes(31) + b"\x01"), Signer(bytes(31) + b"\x02")
PROVEN = "8.8.8.8"


def endpoint(*hosts: str) -> Endpoint:
    return Endpoint(peer=PEER.peer, hosts=hosts, port=4001, certificate=b"")


async def test_a_bulk_call_to_a_proven_host_gives_no_try_back() -> None:
    """A member that answers at its own host must not earn calls to hosts that it made up."""
    book = AddressBook(OWN.peer, [])
    book.learn(
        seal_record(PEER, [PeerAddress("ip4", PROVEN, 4001, PEER.peer)], [], 1), 0.0, "teller"
    )
    book.met(PEER.peer, PROVEN)
    targets = DialTargets(
        book,
        LiveConnections(lambda _connection: None),
        (PeerAddress("ip4", "1.1.1.1", 4001, OWN.peer),),
    )
    tried = 0
    for number in range(3 * int(SOURCE_TRIES_AT_ONCE)):
        assert targets.bulk_hosts(endpoint(PROVEN)) == (PROVEN,)
        targets.met_for_bulk(PEER.peer, PROVEN)
        tried += f"9.{number}.1.1" in targets.bulk_hosts(endpoint(f"9.{number}.1.1"))
    assert tried == SOURCE_TRIES_AT_ONCE


async def test_a_bulk_call_to_a_new_host_gives_its_try_back() -> None:
    book = AddressBook(OWN.peer, [])
    book.learn(
        seal_record(PEER, [PeerAddress("ip4", PROVEN, 4001, PEER.peer)], [], 1), 0.0, "teller"
    )
    targets = DialTargets(
        book,
        LiveConnections(lambda _connection: None),
        (PeerAddress("ip4", "1.1.1.1", 4001, OWN.peer),),
    )
    for number in range(3 * int(SOURCE_TRIES_AT_ONCE)):
        assert targets.bulk_hosts(endpoint(f"9.{number}.1.1"))[0] == f"9.{number}.1.1"
        targets.met_for_bulk(PEER.peer, f"9.{number}.1.1")
