"""Tests where `ForkChoice` leads a node, and how long it goes on without a state."""

from __future__ import annotations

from itertools import count

from daemon.services.training.native.state.fork_choice import (
    FREE_PER_MISSED,
    MERGE_RETRY_S,
    WITHOUT_S,
    ForkChoice,
)
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificates.leader_order import leader_of, leader_order
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.messages.beacon import Beacon
from protocol.round.events import CertificateReceived, ForkFound
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, named, people

ME, OTHER, *_ = people(4)
SERIALS = count(1)


class Node:
    """A lineage, a table of members, and the fork choice over them."""

    def __init__(self, *made: Made) -> None:
        self.lineage = Lineage(RUN, MANIFEST, CHUNKS)
        for one in made:
            self.lineage.add(one.raw())
        self.members = Members(ME.peer, lambda event: None, lambda endpoint: None)
        self.underway: Digest | None = None
        self.arrived: frozenset[Digest] = frozenset()
        self.fork_choice = ForkChoice(self.lineage, self.members, self)

    def hears_of(self, tip: Tip) -> None:
        """Receive the beacon of a peer that reports this tip."""
        beacon = Beacon(
            serial=next(SERIALS),
            name="other",
            role="node",
            number=tip.number,
            tip=tip.hash,
            view=0,
            phase="train",
            samples=0,
            loss=None,
            samples_per_second=0.0,
            device="",
            endpoint=None,
        )
        self.members.receive(OTHER.peer, beacon, 0.0)


FIRST = Made(people(4))
SECOND = Made(people(4), FIRST.next_tip(), seq=2)
LED_BY_ONE_OF_THREE = next(
    view
    for view in (1, 2)
    if leader_of(leader_order(FIRST.next_tip().hash, FIRST.next_tip().members), view)
    in {p.peer for p in people(3)}
)
SIBLING = Made(people(3), FIRST.next_tip(), seq=2, view=LED_BY_ONE_OF_THREE)


def test_fork_choice_leads_to_the_end_of_the_own_branch() -> None:
    node = Node(FIRST, SECOND)
    leads = node.fork_choice.leads(node.lineage.root, 0.0)
    assert isinstance(leads, CertificateReceived)
    assert leads.certificate.hash == SECOND.next_tip().hash
    assert node.fork_choice.leads(SECOND.next_tip(), 0.0) is None


def test_a_certificate_without_a_state_is_only_sought_beside_the_own_rounds() -> None:
    """Such a certificate used to stop a node's rounds for 48 s and more."""
    node, tip = Node(FIRST), FIRST.next_tip()
    node.fork_choice.state_unavailable(tip.hash, 100.0)
    assert node.fork_choice.leads(node.lineage.root, 100.0) is None
    assert node.fork_choice.seeks(node.lineage.root, 100.0) is None
    assert isinstance(
        node.fork_choice.leads(node.lineage.root, 100.0 + WITHOUT_S), CertificateReceived
    )
    node.hears_of(tip)
    assert node.fork_choice.leads(node.lineage.root, 100.0) is None, (
        "a self-reported tip stops no rounds"
    )
    sought = node.fork_choice.seeks(node.lineage.root, 100.0)
    assert sought is not None
    assert sought.hash == tip.hash
    node.arrived = frozenset({tip.hash})
    assert isinstance(node.fork_choice.leads(node.lineage.root, 100.0), CertificateReceived), (
        "its state has arrived"
    )


def test_a_slow_state_is_downloaded_beside_the_own_rounds() -> None:
    """A download of one chunk in 10 s used to hold a node in FETCH until its end."""
    node, tip = Node(FIRST, SECOND), SECOND.next_tip()
    node.underway, missed_s = tip.hash, 180.0
    node.fork_choice.state_unavailable(tip.hash, 1000.0, missed_s)
    for now in (1000.0, 1000.0 + WITHOUT_S, 999.0 + FREE_PER_MISSED * missed_s):
        assert node.fork_choice.leads(node.lineage.root, now) is None
        sought = node.fork_choice.seeks(node.lineage.root, now)
        assert sought is not None
        assert sought.hash == tip.hash
    node.fork_choice.state_unavailable(named("another, that ended at once"), 1001.0)
    assert node.fork_choice.leads(node.lineage.root, 1002.0 + WITHOUT_S) is None
    node.arrived = frozenset({tip.hash})
    assert isinstance(node.fork_choice.leads(node.lineage.root, 1003.0), CertificateReceived), (
        "its state has arrived"
    )
    node.arrived = frozenset()
    node.fork_choice.moved(downloaded=True)
    assert isinstance(node.fork_choice.leads(node.lineage.root, 1003.0), CertificateReceived)


def test_after_a_certificate_without_a_state_the_next_certificate_stops_no_rounds() -> None:
    """An attacker can make another certificate with each new key."""
    node = Node(FIRST, SECOND)
    node.fork_choice.state_unavailable(SECOND.next_tip().hash, 100.0)
    node.lineage.add(SIBLING.raw())
    assert node.fork_choice.leads(node.lineage.root, 101.0) is None
    sought = node.fork_choice.seeks(node.lineage.root, 101.0)
    assert sought is not None
    assert sought.hash == SIBLING.next_tip().hash, (
        "the next certificate, not the one without a state"
    )


def test_a_download_underway_is_finished_before_a_newer_state_of_its_branch() -> None:
    """Each newer certificate used to restart the download.

    On a slow link no state was ever complete.
    """
    node = Node(FIRST, SECOND)
    node.underway = FIRST.next_tip().hash
    leads = node.fork_choice.leads(node.lineage.root, 0.0)
    assert isinstance(leads, CertificateReceived)
    assert leads.certificate.hash == FIRST.next_tip().hash
    node.underway = named("of another branch")
    leads = node.fork_choice.leads(node.lineage.root, 0.0)
    assert isinstance(leads, CertificateReceived)
    assert leads.certificate.hash == SECOND.next_tip().hash


def test_a_branch_with_live_members_is_merged_and_a_failed_merge_is_tried_again_later() -> None:
    node, ours, theirs = Node(FIRST, SECOND, SIBLING), SECOND.next_tip(), SIBLING.next_tip()
    assert node.fork_choice.leads(ours, 0.0) is None, "the branch has no live member"
    node.hears_of(theirs)
    assert node.fork_choice.leads(ours, 0.0) == ForkFound(other=theirs)
    node.fork_choice.merge_failed(100.0)
    assert node.fork_choice.leads(ours, 100.0) is None
    assert node.fork_choice.leads(ours, 100.0 + MERGE_RETRY_S) == ForkFound(other=theirs)
    node.fork_choice.merge_failed(200.0)
    assert node.fork_choice.leads(ours, 200.0 + MERGE_RETRY_S) is None, (
        "rounds go on for longer each time"
    )
    assert node.fork_choice.leads(ours, 200.0 + 2 * MERGE_RETRY_S) == ForkFound(other=theirs)
