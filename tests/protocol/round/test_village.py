"""The round under fire: whatever is lost, doubled, late or out of order, the rules hold; and when
it stops, a certificate comes.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.round.village import Village

SIZES = st.integers(3, 7)
# Two thirds of the villages have several rows.
ROW_SIZES = st.sampled_from((32, 32, 4, 3, 2))
OPS = (
    ("rest",)
    + ("carry",) * 6
    + ("flow",) * 4
    + ("hold",) * 3
    + ("stuff",) * 2
    + ("finish",) * 3
    + ("tick",) * 4
)
OPS += ("split", "mend", "release", "lose", "double", "part", "beacon", "fail", "kill", "restart")
# Of 100 on the average.
STORIES = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 40)), min_size=50, max_size=200)


def live_through(village: Village, op: str, k: int) -> None:
    """One thing happens."""
    alive = village.alive()
    villager = alive[k % len(alive)]
    if op == "flow":
        village.flow(k)
    elif op == "tick":
        village.tick(villager)
    elif op == "beacon":
        villager.lost = {other for other in villager.lost if village.parted(other, villager.me)}
        villager.hear_beacons()
        villager.run()
    elif op == "part":
        other = alive[(k + 1 + k // len(alive)) % len(alive)]
        if other is not villager:
            villager.lose(other.me)
            villager.run()
    elif op == "split":
        village.part(frozenset(v.me for i, v in enumerate(village.villagers) if k >> i % 6 & 1))
    elif op == "mend":
        village.part(frozenset())
    elif op == "kill":
        if k < 10 and len(alive) > 2 and village.can_spare(villager):
            villager.alive = False
    elif op == "restart":
        if all(
            village.holds(tip.hash, villager) or tip.hash in villager.kept
            for tip in [villager.state.tip, villager.tip]
        ):
            village.restart(villager)
    elif op == "finish":
        if villager.work:
            villager.finish()
            villager.run()
    elif op == "fail":
        village.downloads_that_fail += 1
    elif op == "release":
        village.wire, village.held = village.wire + village.held, []
    elif op != "rest" and village.wire:
        letter = village.wire[k % len(village.wire)]
        if op != "double":
            village.wire.remove(letter)
        if op == "hold":
            village.held.append(letter)
        elif op != "lose":
            village.deliver(letter, run=op != "stuff")


def heal(village: Village, rounds: int, ticks: int) -> int:
    """No more faults: everybody comes to one tip, `rounds` further on.

    Returns how many deadlines that took.
    """
    village.part(frozenset())
    village.wire, village.held = village.wire + village.held, []
    goal = max(villager.state.tip.number for villager in village.alive()) + rounds
    for count in range(ticks):
        village.catch_up()
        village.flow()
        tips = {villager.state.tip.hash: villager.state.tip.number for villager in village.alive()}
        if len(tips) == 1 and min(tips.values()) >= goal:
            return count
        village.tick_next()
    stand = [
        (v.me[-4:], v.state.phase.value, v.state.tip.number, v.state.view, len(v.state.live))
        for v in village.alive()
    ]
    raise AssertionError(f"no certificate within {ticks} deadlines: {stand}")


@given(SIZES, ROW_SIZES, st.booleans())
def test_without_faults_every_round_is_certified_in_its_first_view(
    size: int, row_size: int, settled: bool
) -> None:
    village = Village(size, settled=size if settled else 0, max_group=row_size)
    start = village.villagers[0].state.tip.number
    for number in range(start + 1, start + 4):
        # One node's training ends: the only deadlines that pass are those.
        village.tick_next()
        for _ in range(size):
            village.flow()
            if any(villager.state.tip.number < number for villager in village.villagers):
                village.tick_next()
            village.catch_up()
        assert {villager.state.tip.number for villager in village.villagers} == {number}
        assert {villager.state.view for villager in village.villagers} == {0}
    assert not village.refused
    assert len({villager.state.tip.hash for villager in village.villagers}) == 1


@given(SIZES, ROW_SIZES, st.integers(0, 7), STORIES)
def test_whatever_happens_the_rules_hold_and_a_certificate_comes(
    size: int, row_size: int, settled: int, story: list[tuple[str, int]]
) -> None:
    """Some are newcomers, some die, anything happens to the letters; afterwards everybody alive is
    on one tip and goes on.
    """
    village = Village(size, settled=min(settled, size) if settled > 1 else 0, max_group=row_size)
    for op, k in story:
        live_through(village, op, k)
    heal(village, rounds=2, ticks=60 * size)


@given(SIZES, ROW_SIZES, STORIES)
def test_settled_members_never_certify_a_view_twice(
    size: int, row_size: int, story: list[tuple[str, int]]
) -> None:
    village = Village(size, settled=size, max_group=row_size)
    for op, k in story:
        live_through(village, op, k)
    heal(village, rounds=1, ticks=60 * size)
