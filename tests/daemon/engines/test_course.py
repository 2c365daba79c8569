"""Where the lineage leads a node, and what it does without for a while."""

from __future__ import annotations

from itertools import count

from daemon.engines.native.course import MERGE_RETRY_S, WITHOUT_S, Course
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificate import Tip
from protocol.leader import leader_of, leader_order
from protocol.messages import Beacon
from protocol.round.phases import CertificateGot, ForkGot
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

ME, OTHER, *_ = people(4)
SERIALS = count(1)


class Node:
    """A lineage, a table of members, and the course from them."""

    def __init__(self, *made: Made) -> None:
        self.lineage = Lineage(RUN, MANIFEST, CHUNKS)
        for one in made:
            self.lineage.add(one.raw())
        self.members = Members(ME.peer, lambda event: None, lambda endpoint: None)
        self.course = Course(self.lineage, self.members)

    def hears_of(self, tip: Tip) -> None:
        """Somebody says that it holds this tip."""
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
        self.members.take(OTHER.peer, beacon, 0.0)


FIRST = Made(people(4))
SECOND = Made(people(4), FIRST.next_tip(), seq=2)
LED_BY_ONE_OF_THREE = next(
    view for view in (1, 2) if leader_of(leader_order(FIRST.next_tip().hash, FIRST.next_tip().members), view) in {p.peer for p in people(3)}
)
SIBLING = Made(people(3), FIRST.next_tip(), seq=2, view=LED_BY_ONE_OF_THREE)


def test_it_leads_to_the_end_of_the_own_branch() -> None:
    node = Node(FIRST, SECOND)
    leads = node.course.leads(node.lineage.root, 0.0)
    assert isinstance(leads, CertificateGot)
    assert leads.certificate.hash == SECOND.next_tip().hash
    assert node.course.leads(SECOND.next_tip(), 0.0) is None


def test_what_nobody_gave_is_done_without_until_somebody_has_it_or_a_while_is_over() -> None:
    node, tip = Node(FIRST), FIRST.next_tip()
    node.course.nobody_gave(tip.hash, 100.0)
    assert node.course.leads(node.lineage.root, 100.0) is None
    assert isinstance(node.course.leads(node.lineage.root, 100.0 + WITHOUT_S), CertificateGot)
    node.hears_of(tip)
    assert isinstance(node.course.leads(node.lineage.root, 100.0), CertificateGot)


def test_a_branch_is_merged_with_while_somebody_lives_on_it_and_a_failure_is_tried_again_later() -> None:
    node, ours, theirs = Node(FIRST, SECOND, SIBLING), SECOND.next_tip(), SIBLING.next_tip()
    assert node.course.leads(ours, 0.0) is None, "nobody lives there"
    node.hears_of(theirs)
    assert node.course.leads(ours, 0.0) == ForkGot(other=theirs)
    node.course.merge_failed(theirs.hash, 100.0)
    assert node.course.leads(ours, 100.0) is None
    assert node.course.leads(ours, 100.0 + MERGE_RETRY_S) == ForkGot(other=theirs)
