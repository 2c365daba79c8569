"""The rounds of training behind a certificate's mean."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.tip import genesis
from protocol.contribution.round_share import rounds_in
from protocol.messages.offer import MAX_ROUNDS, Ready, Trajectory
from tests.protocol.rounds import RUN, people, ready

TIP = genesis(RUN)


def offer(samples: int, rounds: int) -> Ready:
    return replace(ready(TIP, people(1)[0], samples=samples), trajectory=Trajectory(rounds=rounds))


def test_ordinary_offers_make_an_ordinary_round_to_the_bit() -> None:
    assert rounds_in([offer(7, 1), offer(1000, 1), offer(3, 1)]) == 1.0


def test_rounds_are_weighted_by_samples() -> None:
    assert rounds_in([offer(300, 3), offer(100, 1)]) == 2.0, "400 samples at 200 samples a round"


def test_the_claim_of_a_member_counts_by_its_share_of_the_weight() -> None:
    """An offer with a thousandth of the weight claims a million rounds.

    Without this bound, such a claim would end momentum and error feedback for all members.
    """
    assert 1.0 < rounds_in([offer(999, 1), offer(1, MAX_ROUNDS)]) < 1.0011


def test_a_merge_without_offers_is_an_ordinary_round() -> None:
    assert rounds_in([]) == 1.0
