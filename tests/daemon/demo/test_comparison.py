"""The comparison of a demo: one machine alone at the pace of a member."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from daemon.demo.agreement import Agreement
from daemon.demo.comparison import (
    LonePoint,
    compare,
    comparison_text,
    pace_of,
    reference_curve,
)
from daemon.demo.result import RoundTally, result_text
from protocol.status import HeldOutPoint, StatusState, status_at
from protocol.status.reference import MAX_REFERENCE_POINTS

BEGAN_AT = 1000.0
# Ten samples a second: 3.0 after 30 s, 2.0 after 60 s.
ALONE = [LonePoint(samples=100 * i, loss=4.0 - i / 3) for i in range(10)]
CURVE = reference_curve(ALONE, 10.0, BEGAN_AT)


def swarm(*course: tuple[float, float]) -> list[HeldOutPoint]:
    return [
        HeldOutPoint(
            number=i,
            at=BEGAN_AT + seconds,
            samples=i,
            loss=loss,
            training=None,
            scored=256,
            scorers=4,
        )
        for i, (seconds, loss) in enumerate(course, 1)
    ]


def test_pace_is_samples_a_second_of_computing_over_all_members() -> None:
    you = replace(StatusState().you, samples_total=300, trained_s=20.0)
    slow = replace(you, samples_total=100, trained_s=20.0)
    statuses = [
        replace(status_at(StatusState(), 0.0), you=one) for one in (you, slow, StatusState().you)
    ]
    assert pace_of([*statuses, None]) == pytest.approx(10.0)
    assert pace_of([None]) == 0.0


def test_comparison_gives_the_lone_machine_the_members_pace() -> None:
    compared = compare(swarm((10.0, 3.0), (30.0, 2.0), (60.0, 1.5)), CURVE, 10.0)
    assert compared is not None
    assert (compared.seconds, compared.swarm) == (60.0, 1.5)
    assert compared.alone == pytest.approx(2.0)
    assert compared.reached_s == pytest.approx(30.0)
    assert compared.speedup == pytest.approx(2.0)
    assert comparison_text(compared) == (
        "Held-out loss 1.500 after 1 min; one machine alone at this pace: 2.000, which the swarm"
        " had after 30 s (2.0 times as fast)."
    )


def test_comparison_uses_the_last_time_that_the_lone_machine_reached() -> None:
    compared = compare(swarm((45.0, 2.0), (200.0, 1.0)), CURVE, 10.0)
    assert compared is not None
    assert (compared.seconds, compared.swarm) == (45.0, 2.0)
    assert compared.alone == pytest.approx(2.5)
    # From 4.0 at the beginning, linear to 2.0 at 45 s.
    assert compared.reached_s == pytest.approx(33.75)


def test_comparison_says_no_factor_where_the_swarm_is_behind() -> None:
    compared = compare(swarm((60.0, 2.5)), CURVE, 10.0)
    assert compared is not None
    assert compared.speedup is None
    assert comparison_text(compared).endswith("one machine alone at this pace: 2.000.")
    assert compare([], CURVE, 10.0) is None
    assert compare(swarm((10.0, 3.0)), reference_curve([], 10.0, BEGAN_AT), 10.0) is None


def test_reference_curve_is_bounded() -> None:
    many = [LonePoint(samples=i, loss=1.0) for i in range(10 * MAX_REFERENCE_POINTS + 1)]
    assert len(reference_curve(many, 1.0, BEGAN_AT).points) <= MAX_REFERENCE_POINTS
    assert reference_curve(many, 0.0, BEGAN_AT).points == ()


def test_result_of_a_demo_begins_with_the_gain() -> None:
    compared = compare(swarm((60.0, 1.5)), CURVE, 10.0)
    agreed = Agreement(agreed=True, number=3, reason="all agree")
    result = RoundTally(0.0).result(4, agreed, None, compared)
    assert "Held-out loss 1.500 after 1 min" in result_text(result, agreed).splitlines()[1]
