"""A member with the clock of another year: every node says so, and it slows nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.swarm import Daemon, Machine, Swarm, hypergpud

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

DAYS = 1800
SHIM = Path(__file__).with_name("shifted_clock")


def behind() -> Machine:
    """This machine with a clock that is years behind."""
    shift = (f"PYTHONPATH={SHIM}", f"CLOCK_SHIFT_S={-DAYS * 86_400}")
    return Machine(prefix=("env", *shift))


def said(node: Daemon) -> str:
    status = node.now()
    return "\n".join([status.verdict, *(event.text for event in status.events)])


def test_member_with_a_clock_of_another_year_is_named_and_slows_nobody(tmp_path: Path) -> None:
    with Swarm(tmp_path, machines=[Machine(), Machine(), behind()]) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        third = swarm.join("third", first)
        swarm.until(
            lambda: any(len(one.contributors) == 3 for one in first.now().rounds),
            "a round that counts all three",
            120.0,
        )
        joined_at = first.now().run.number
        swarm.until_round(joined_at + 4, first, second, third, limit_s=120.0)
        for node in (first, second):
            swarm.until(
                lambda node=node: f"is {DAYS} d behind. Rounds do not need it" in said(node),
                f"{node.name} names the wrong clock",
            )
        own = f"This machine's clock is {DAYS} d behind by those of 2 of 2 peers"
        swarm.until(lambda: own in third.now().verdict, "the third one hears of its own clock")
        assert own in hypergpud("doctor", home=third.home).stdout
        assert "agrees with those of" in hypergpud("doctor", home=first.home).stdout
        late = [one for one in first.now().rounds if one.number > joined_at and one.certificate]
        assert sum(len(one.contributors) == 3 for one in late) >= 2, late
        swarm.stop(first, second, third)
        for node in (first, second, third):
            assert "bad certificate" not in node.log()
            assert "Traceback" not in node.log()
