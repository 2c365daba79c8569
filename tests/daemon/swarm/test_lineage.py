"""Lineage: it always keeps its own ancestry, and a share of the certificates of each source."""

from __future__ import annotations

from functools import lru_cache

import pytest

from daemon.swarm import certificate_shares
from daemon.swarm.certificate_shares import UNASKED_BY_ONE, UNASKED_KEPT
from daemon.swarm.lineage import Lineage
from daemon.swarm.orphans import ORPHANS_KEPT, ORPHANS_OF_ONE
from protocol.certificates.tip import Tip, genesis
from protocol.digest import digest
from protocol.identity import Signer
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

HONEST = people(2)
# Forged certificates, as many as once evicted the honest tip.
FLOOD = 600


@lru_cache
def honest(length: int) -> tuple[Made, ...]:
    """A lineage of two members."""
    made: list[Made] = []
    for seq in range(1, length + 1):
        made.append(Made(HONEST, made[-1].next_tip() if made else None, seq=seq))
    return tuple(made)


def forged(pair: int, seq: int = 1, tip: Tip | None = None) -> Made:
    """A certificate that two keys of a stranger made, with more samples than any honest one."""
    persons = sorted(
        (Signer(digest(b"forger", bytes((side,)), pair.to_bytes(4, "big"))) for side in (0, 1)),
        key=lambda one: one.peer,
    )
    return Made(persons, tip or genesis(RUN), seq=seq, samples=1000)


def a_lineage(length: int) -> tuple[Lineage, Tip]:
    """A lineage that follows the last of `length` honest certificates."""
    lineage = Lineage(RUN, MANIFEST, CHUNKS)
    for one in honest(length):
        lineage.add(one.raw(), source="member")
    lineage.adopt(honest(length)[-1].next_tip())
    return lineage, honest(length)[-1].next_tip()


def test_forged_certificates_evict_neither_the_tip_nor_its_ancestry() -> None:
    lineage, tip = a_lineage(5)
    for n in range(FLOOD):
        lineage.add(forged(n % 40, seq=n // 40 + 1).raw(), source=f"stranger {n % 40}")
    assert lineage.tip(tip.hash) == tip
    assert [one.outcome.number for one in lineage.path(genesis(RUN), tip)] == [1, 2, 3, 4, 5]
    assert lineage.front == tip, "a node asks from the head that it follows, not from a forged one"
    following = Made(HONEST, tip, seq=6)
    assert len(lineage.add(following.raw(), source="member")) == 1
    assert lineage.front == following.next_tip()


def test_unasked_certificates_of_one_peer_have_a_share() -> None:
    lineage, _ = a_lineage(2)
    for n in range(UNASKED_BY_ONE + 20):
        lineage.add(forged(n).raw(), source="stranger")
    assert lineage.kept == 2 + UNASKED_BY_ONE
    other = forged(900)
    lineage.add(other.raw(), source="other")
    assert lineage.entry(other.next_tip().hash) is not None


def test_all_other_sources_together_have_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_shares, "OTHERS_KEPT", 10)
    lineage, tip = a_lineage(2)
    quiet = forged(99)
    lineage.add(quiet.raw(), source="quiet")
    for n in range(30):
        lineage.add(forged(n).raw(), source=f"stranger {n % 3}")
    assert lineage.kept == 2 + 10
    assert lineage.entry(quiet.next_tip().hash) is not None, "the source with most makes room"
    assert lineage.tip(tip.hash) == tip


def test_unasked_certificates_of_all_have_a_share_and_unheld_heads_are_skipped() -> None:
    lineage, tip = a_lineage(2)
    for n in range(UNASKED_KEPT + 40):
        lineage.add(forged(n).raw(), source=f"stranger {n % 20}")
    assert lineage.kept == 2 + UNASKED_KEPT
    branches = lineage.other_branches(tip)
    assert len(branches) == UNASKED_KEPT
    assert lineage.other_branches(tip, lambda head: head.hash == branches[7].hash) == [branches[7]]
    assert [head.samples for head in branches] == sorted(
        (head.samples for head in branches), reverse=True
    )


def test_certificates_without_parents_wait_in_small_numbers() -> None:
    lineage, _ = a_lineage(2)
    for n in range(ORPHANS_OF_ONE + 5):
        lineage.add(forged(n, seq=2, tip=forged(n).next_tip()).raw(), source="stranger")
    assert lineage.waiting == ORPHANS_OF_ONE
    for n in range(ORPHANS_KEPT + 5):
        lineage.add(
            forged(n + 50, seq=2, tip=forged(n + 50).next_tip()).raw(), source=f"stranger {n}"
        )
    assert lineage.waiting == ORPHANS_KEPT


def test_an_orphan_counts_for_its_source() -> None:
    lineage, _ = a_lineage(1)
    late = honest(3)
    lineage.add(late[2].raw(), source="member")
    assert lineage.waiting
    assert len(lineage.add(late[1].raw(), source="member")) == 2
    assert set(lineage._shares._shares) == {"member"}
    lineage.adopt(late[2].next_tip())
    assert not lineage._shares._shares
    assert list(lineage._own) == [one.next_tip().hash for one in late]


def test_descends_does_not_walk_past_the_older_tip() -> None:
    lineage, tip = a_lineage(4)
    first = honest(4)[0].next_tip()
    assert lineage.descends(tip, first)
    assert not lineage.descends(first, tip)
    stranger = forged(1)
    lineage.add(stranger.raw(), source="stranger")
    assert not lineage.descends(stranger.next_tip(), tip)
    assert not lineage.descends(tip, stranger.next_tip())
    assert lineage.other_branches(tip) == [stranger.next_tip()]


def test_a_node_that_was_away_for_longer_than_certificates_are_kept_finds_the_way_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node once saw later certificates as another branch, and tried to merge for ever."""
    lineage, tip = a_lineage(3)
    monkeypatch.setattr(certificate_shares, "TIPS_KEPT", 4)
    parted = Made(HONEST, honest(2)[-1].next_tip(), seq=9)
    lineage.add(parted.raw(), source="another")
    for one in honest(12)[3:]:
        lineage.add(one.raw(), source="member", asked=True)
    last = honest(12)[-1].next_tip()
    assert lineage.preferred_descendant(tip) == lineage.front == last
    assert lineage.other_branches(tip) == [parted.next_tip()]
    assert [one.outcome.number for one in lineage.path(tip, last)] == [9, 10, 11, 12]
    lineage.adopt(last)
    assert lineage.descends(last, tip)
    assert not lineage.descends(last, parted.next_tip())
    assert not lineage.descends(tip, last)


# ------------------------------------------------------- the certificate of an invitation


def test_a_joiner_follows_only_a_history_with_its_invitations_certificate() -> None:
    """An address may have been taken over by somebody with a history of its own."""
    right, root = honest(4), genesis(RUN)
    wrong = [forged(1)]
    for seq in range(2, 9):
        wrong.append(forged(1, seq=seq, tip=wrong[-1].next_tip()))
    lineage = Lineage(RUN, MANIFEST, CHUNKS)
    lineage.require(right[1].next_tip().hash)
    for one in wrong:
        lineage.add(one.raw(), source="impostor", asked=True)
    assert lineage.preferred_descendant(root) is None
    assert lineage.other_branches(root) == []
    lineage.add(right[0].raw(), source="member", asked=True)
    assert lineage.preferred_descendant(root) is None, "the certificate has not arrived yet"
    for one in right[1:]:
        lineage.add(one.raw(), source="member", asked=True)
    assert lineage.descendants(root) == [right[3].next_tip()]
    lineage.adopt(right[3].next_tip())
    following = Made(HONEST, right[3].next_tip(), seq=5)
    lineage.add(following.raw(), source="member")
    assert lineage.preferred_descendant(right[3].next_tip()) == following.next_tip()


@pytest.mark.parametrize("required", [None, genesis(RUN).hash])
def test_an_invitation_of_the_first_minute_requires_nothing(required: bytes | None) -> None:
    lineage = Lineage(RUN, MANIFEST, CHUNKS)
    lineage.require(required)
    (made,) = honest(1)
    lineage.add(made.raw(), source="member")
    assert lineage.preferred_descendant(genesis(RUN)) == made.next_tip()
