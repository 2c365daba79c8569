"""Follower: it looks at few beacons of one signer and few certificates of all strangers."""

from __future__ import annotations

import random

import trio

from daemon.swarm.follower import MAX_BEACON_BYTES, Follower, FollowerHooks
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.news_limits import (
    CERTIFICATE_COUNTS,
    SIGNER_BEACONS_AT_ONCE,
    STRANGERS_CERTIFICATES_AT_ONCE,
)
from protocol.digest import digest
from protocol.identity import Signer
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import encode_signed, sign
from simulator.fakes.clock import run_virtual
from simulator.fakes.swarm import FakeSwarm
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

STRANGERS = 40


def beacon(serial: int, name: str = "n") -> Beacon:
    return Beacon(
        serial=serial,
        name=name,
        role="node",
        number=0,
        tip=RUN,
        view=0,
        phase="train",
        samples=0,
        loss=None,
        samples_per_second=0.0,
        device="",
        endpoint=None,
    )


class Node:
    """A follower on a network without peers. The tests call its gossip handlers directly."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.members = Members("me", lambda _event: None, lambda _endpoint: None)
        self.lineage = Lineage(RUN, MANIFEST, CHUNKS)
        self.follower = Follower(
            network=FakeSwarm(random.Random(1)).network(b"s" * 32),
            run=RUN,
            signer=Signer(b"s" * 32),
            lineage=self.lineage,
            members=self.members,
            refuse=lambda reason, _peer, _detail: self.refused.append(reason),
            hooks=FollowerHooks(
                on_entries=lambda _entries: None,
                on_members=lambda: None,
                on_gone=lambda _peer: None,
                beacon=lambda: beacon(1),
                send=lambda _peer, _signed: None,
            ),
        )


def test_the_beacons_of_one_signer_have_a_rate_and_a_size() -> None:
    async def main() -> None:
        node, signer = Node(), Signer(b"b" * 32)
        heard = [
            node.follower._accept_beacon(signer.peer, encode_signed(sign(signer, RUN, beacon(n))))
            for n in range(1, 101)
        ]
        assert sum(heard) == SIGNER_BEACONS_AT_ONCE
        await trio.sleep(1.0)
        long = encode_signed(sign(signer, RUN, beacon(200, "x"))) + bytes(MAX_BEACON_BYTES)
        assert not node.follower._accept_beacon(signer.peer, long)
        assert set(node.refused) == {"busy", "oversized"}

    run_virtual(main)


def test_certificates_of_strangers_have_one_rate_for_all_of_them() -> None:
    async def main() -> None:
        node = Node()
        accepted = 0
        for n in range(STRANGERS):
            pair = sorted(
                (Signer(digest(bytes((n, side)))) for side in (0, 1)), key=lambda one: one.peer
            )
            accepted += node.follower._accept_certificate(f"stranger {n}", Made(pair).raw())
        assert accepted == STRANGERS_CERTIFICATES_AT_ONCE
        honest = Made(people(2))
        node.members.prove([people(2)[0].peer])
        assert node.follower._accept_certificate(people(2)[0].peer, honest.raw()), (
            "a member's certificate is accepted besides"
        )
        assert node.lineage.tip(honest.next_tip().hash) is not None
        assert SIGNER_BEACONS_AT_ONCE > CERTIFICATE_COUNTS

    run_virtual(main)
