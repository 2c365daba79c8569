"""Exchanges of rules 4: all members sum capped and clipped contributions to the same bytes."""

from __future__ import annotations

import pytest

from protocol.averaging.plan_sum import PlanSum
from protocol.messages.sum_terms import SumTerms
from simulator.fakes.clock import run_virtual
from tests.daemon.training.exchange_world import exchange_world

PARAMETERS = 4096 * 40 + 5
# A usual step is as long as one contribution of the standard normal vectors.
TERMS = SumTerms(
    weights=(3, 6, 3, 3, 3), voters=(0, 2, 3, 4), newcomers=(), median=3, norm=PARAMETERS**0.5
)
ALL = (0, 1, 2, 3, 4)


@pytest.mark.parametrize("codec", ["float32", "int8", "topk"])
@pytest.mark.parametrize("contributors", [ALL, (0, 1, 3, 4)], ids=["early", "without one"])
def test_members_find_the_clipped_mean_and_note_what_was_clipped(
    codec: str, contributors: tuple[int, ...]
) -> None:
    async def story() -> None:
        async with exchange_world(
            codec,
            PARAMETERS,
            weights=(3, 900, 3, 3, 3),
            terms=TERMS,
            lengths=(1, 30, 1, 1, 1),
        ) as world:
            world.begin()
            absent = tuple(i for i in ALL if i not in contributors)
            found = await world.average(contributors, absent=absent)
            assert set(found.values()) == {world.root(contributors)}
            assert found.keys() == set(contributors)
            for index in contributors:
                exchange = world.members[index].exchange
                assert exchange is not None
                shares = exchange.clip_shares()
                assert shares.keys() == set(contributors)
                # It weighs 4 or 6 where the median is 3. What top-k leaves of a vector is about a
                # third as long as the vector.
                least, most = 0.7, 4.0 if codec == "topk" else 1.2
                assert least < 30 * shares[1] < most
                assert all(shares[i] > 0.9 for i in contributors if i != 1)

    run_virtual(story)


def test_a_member_with_capped_weight_carries_more_of_what_encoding_lost() -> None:
    async def story() -> None:
        async with exchange_world(
            "int8", PARAMETERS, weights=(3, 900, 3, 3, 3), terms=TERMS
        ) as world:
            sums = PlanSum(world.plan, ALL, PARAMETERS)
            assert sums.weights == {0: 3, 1: 4, 2: 3, 3: 3, 4: 3}, "a third of the others"
            assert sums.loss_weight(16, claimed=900, member=1) == 16 * 900 // 4
            assert sums.loss_weight(16, claimed=3, member=0) == 16
            assert sums.loss_weight(16, claimed=0, member=9) == 16, "it contributes nothing"

    run_virtual(story)
