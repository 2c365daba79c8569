"""Which members make a round's encoded mean durable before they vote.

Every member could do so, and a swarm of a thousand would write the same bytes a thousand times.
Three members lose it only if all three disks fail, and each writes a small share of the rounds: the
outcome's digest draws them, so the work spreads evenly and nobody can choose the keepers.

A certificate may gather its majority without them, because they died meanwhile. `keeper_voted`
says so. Then each member that adopts the certificate keeps the mean itself, before it writes the
certificate.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.digest import digest
from protocol.identity import PeerId
from protocol.messages.envelope import payload_of
from protocol.messages.round import Inclusion, Vote
from protocol.planning.plan import OpenPlan

# As many copies as common storage systems keep: two disks may fail before the third is read.
KEEPERS = 3


def keepers(vote: Vote, plan: OpenPlan, inclusion: Inclusion) -> tuple[PeerId, ...]:
    """The members that keep the mean of an outcome, of those whom the inclusion names present."""
    outcome = digest(payload_of(vote))
    present = [plan.members[i] for i in inclusion.present]
    return tuple(sorted(present, key=lambda peer: digest(outcome, peer.encode()))[:KEEPERS])


def keeper_voted(
    voters: Iterable[PeerId], vote: Vote, plan: OpenPlan, inclusion: Inclusion
) -> bool:
    """Whether one of the keepers voted, and so had made the mean durable."""
    return not set(voters).isdisjoint(keepers(vote, plan, inclusion))
