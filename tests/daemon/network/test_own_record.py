"""Exactly one of two nodes with one key learns that it is the younger one."""

from __future__ import annotations

from itertools import count

import pytest

from daemon.network.addresses import PeerAddress
from daemon.network.peers.own_record import KeyObservation, OwnRecord
from daemon.network.peers.peer_record import SignedPeerRecord, read_record, seal_record
from protocol.errors import PeerFault
from protocol.identity import Signer

ME = Signer(bytes(32))
RUN = frozenset([bytes(32)])
OTHER_RUN = frozenset([bytes(31) + b"o"])


class Node:
    """A process with the key. Its numbers begin at `first`."""

    def __init__(self, first: int, port: int) -> None:
        self.observed: list[KeyObservation] = []
        self.address = PeerAddress("ip4", "203.0.113.7", port, ME.peer)
        self.own = OwnRecord(ME, [self.address], count(first, 1000).__next__, self.observed.append)

    @property
    def relations(self) -> list[str]:
        return [one.relation for one in self.observed]


class Neighbour:
    """Keeps the newest record of a key, as every address book does, and hands it out."""

    def __init__(self) -> None:
        self.newest: SignedPeerRecord | None = None

    def meet(self, node: Node) -> None:
        """Exchange records: the neighbour answers before it looks at what it received.

        A record that was sealed anew is exchanged at once.
        """
        for _ in range(2):
            known = self.newest
            mine = node.own.sealed(RUN)
            if self.newest is None or read_record(mine).seq > read_record(self.newest).seq:
                self.newest = mine
            if known is None or not node.own.heard(known):
                return


def test_two_nodes_with_one_key_find_out_which_is_the_younger() -> None:
    old, new, neighbour = Node(1_000_000, 4001), Node(5_000_000, 4002), Neighbour()
    neighbour.meet(old)
    neighbour.meet(new)
    assert (old.relations, new.relations) == ([], ["earlier"])
    assert new.observed[0].addresses == (old.address,)
    neighbour.meet(old)
    assert old.relations == ["younger"]
    assert old.observed[0].addresses == (new.address,)
    neighbour.meet(new)
    assert new.relations == ["earlier", "answered"]
    for _ in range(3):
        neighbour.meet(old)
    assert old.relations == ["younger"], "an observation is reported once"


@pytest.mark.parametrize("resealed", ["before it hears of the other", "after its answer"])
def test_the_older_node_is_never_the_copy_when_its_keys_change(resealed: str) -> None:
    """Its later records have greater numbers than the younger node's first one."""
    old, new, neighbour = Node(1_000_000, 4001), Node(5_000_000, 4002), Neighbour()
    neighbour.meet(old)
    neighbour.meet(new)
    if resealed == "before it hears of the other":
        old.own.sealed(OTHER_RUN)
    neighbour.meet(old)
    old.own.sealed(OTHER_RUN)
    for _ in range(3):
        neighbour.meet(old)
        neighbour.meet(new)
        new.own.sealed(OTHER_RUN)
    assert set(old.relations) == {"younger"}
    assert new.relations[-1] == "answered"


def test_an_earlier_process_is_never_taken_for_another_node() -> None:
    before, neighbour = Node(1_000_000, 4001), Neighbour()
    neighbour.meet(before)
    again = Node(9_000_000, 4001)
    for _ in range(3):
        neighbour.meet(again)
    assert again.relations == ["earlier"]
    assert again.own.sealed(RUN) == neighbour.newest


def test_a_dead_node_whose_clock_was_ahead_is_overtaken() -> None:
    """A home is restored from a backup, and the node that went on had a wrong clock."""
    gone, neighbour = Node(9_000_000, 4001), Neighbour()
    neighbour.meet(gone)
    restored = Node(1_000_000, 4001)
    for _ in range(4):
        neighbour.meet(restored)
    assert restored.relations == ["younger"]
    assert read_record(restored.own.sealed(RUN)).seq == read_record(gone.own.sealed(RUN)).seq + 1


def test_a_record_that_the_key_did_not_sign_is_refused() -> None:
    node = Node(1_000_000, 4001)
    forged = seal_record(Signer(bytes([1]) * 32), [], RUN, 5_000_000)
    body = seal_record(ME, [], RUN, 5_000_000).body
    with pytest.raises(PeerFault) as caught:
        node.own.heard(SignedPeerRecord(body=body, signature=forged.signature))
    assert caught.value.reason == "unsigned"
    assert node.relations == []


def test_judged_numbers_are_bounded() -> None:
    node = Node(10**9, 4001)
    for number in range(1, 2000):
        node.own.heard(seal_record(ME, [], RUN, number))
    assert len(node.own._judged) < 100
