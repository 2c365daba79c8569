"""Groups drawn by measured distance, with the plan's reason and a list of their members."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.observer.groups_card import flat_places, groups_card, round_trip_ms
from daemon.observer.page import page_html
from daemon.observer.page_lists import names_of
from protocol.journal import MemberPlace
from protocol.status import Status, status_at
from protocol.status.group_records import GroupMember
from tests.daemon.observer.test_page import Markup
from tests.story import AT, HOSTILE, PEERS, certified, day, folded, report

REASON = "2 groups of 2, about 1.2 s; one group of 4 would take 3.4 s"


def place(group: int, x_us: int, y_us: int, height_us: int = 1_000) -> MemberPlace:
    return MemberPlace(group=group, is_measured=True, x_us=x_us, y_us=y_us, height_us=height_us)


TWO_CITIES = (
    place(0, 0, 0),
    place(0, 2_000, 0),
    place(1, 80_000, 0, 9_000),
    place(1, 82_000, 3_000),
)


def grouped(places: tuple[MemberPlace, ...] = TWO_CITIES) -> Status:
    last = replace(certified(7, at=AT), places=places, plan=REASON, predicted_s=1.2)
    return status_at(folded([*day(), last]), AT)


def card_of(status: Status) -> str:
    return groups_card(status, names_of(status))


def dots(card: str) -> list[tuple[float, float, int]]:
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)">(\d+)</text></g>', card)
    return [(float(x), float(y), int(group)) for x, y, group in found]


def test_card_draws_groups_by_measured_distance_beside_the_reason() -> None:
    card = card_of(grouped())
    Markup(card)
    assert f"{REASON[0]}{REASON[1:]}." in card
    a, b, c, d = dots(card)
    assert [one[2] for one in (a, b, c, d)] == [1, 1, 2, 2]

    def far(one: tuple[float, float, int], other: tuple[float, float, int]) -> float:
        return math.dist(one[:2], other[:2])

    # The picture keeps the proportions of the plane: 2 ms beside 80 ms, and 80 beside 82.
    assert far(a, c) / far(a, b) == pytest.approx(40, rel=0.1)
    assert far(a, b) < far(c, d) < far(a, c)
    assert "Group 1</b>: attic (you), kitchen" in card
    assert "round trips up to 4.0 ms" in card
    assert "its access takes 9.0 ms" in card or "its access takes 9 ms" in card


def test_card_lists_members_whose_place_is_not_measured() -> None:
    unknown = MemberPlace(group=1)
    card = card_of(grouped((*TWO_CITIES[:3], unknown)))
    assert len(dots(card)) == 3
    assert "1 place not measured yet" in card
    card = card_of(grouped((TWO_CITIES[0], unknown, unknown, unknown)))
    assert "<svg" not in card
    assert "not measured yet" in card


def test_page_without_a_certificate_or_from_an_older_journal_has_no_groups() -> None:
    assert card_of(status_at(folded(day("observer", rounds=0)), AT)) == ""
    assert 'class="card groups"' not in page_html(status_at(folded(day()), AT))
    assert 'class="card groups"' in page_html(grouped())


def test_card_escapes_names_and_reasons() -> None:
    status = grouped()
    hostile = [replace(certified(8, at=AT), places=TWO_CITIES, plan=HOSTILE), report(3)]
    status = status_at(folded([*day(), *hostile]), AT)
    assert "<script" not in card_of(status)


COORDINATES = st.floats(-60_000, 60_000)


@given(st.lists(st.tuples(COORDINATES, COORDINATES, COORDINATES), min_size=2, max_size=64))
def test_flat_places_never_stretch_a_distance(places: list[tuple[float, float, float]]) -> None:
    members = [
        GroupMember(peer=str(i), group=1, is_measured=True, x_ms=x, y_ms=y, z_ms=z)
        for i, (x, y, z) in enumerate(places)
    ]
    flat = flat_places(members)
    for one, at in zip(members[1:], flat[1:], strict=True):
        assert math.dist(at, flat[0]) <= round_trip_ms(one, members[0]) * (1 + 1e-6) + 1e-3
    assert not any(math.isnan(part) for at in flat for part in at)


@given(
    st.lists(
        st.builds(
            MemberPlace,
            group=st.integers(0, 9),
            is_measured=st.booleans(),
            x_us=st.integers(),
            y_us=st.integers(),
            height_us=st.integers(),
        ),
        min_size=4,
        max_size=4,
    )
)
def test_card_draws_any_places(places: list[MemberPlace]) -> None:
    card = card_of(grouped(tuple(places)))
    Markup(card)
    assert "nan" not in card
    assert "inf" not in card.replace("information", "")


def test_a_member_that_comes_or_goes_is_marked_with_its_name() -> None:
    events = [*day(), certified(7, at=AT, members=3), certified(8, at=AT + 14, members=5)]
    status = status_at(folded(events), AT + 20)
    assert [(one.number, one.left, one.joined) for one in status.moves] == [
        (7, (PEERS[3],), ()),
        (8, (), (PEERS[3], PEERS[4])),
    ]
    words = Markup(page_html(status)).words
    assert "round 8: 5 of 5 members counted; joined: <script>" in words
    assert "round 7: 3 of 3 members counted; left: " in words
