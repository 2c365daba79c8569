"""What relaying may cost: sessions and half-open requests, by peer and in all."""

from __future__ import annotations

from daemon.network.traversal.relay_limits import (
    HALF_OPEN_OF_PEER,
    MAX_HALF_OPEN,
    MAX_SESSIONS,
    SESSIONS_OF_MEMBER,
    SESSIONS_OF_NEWCOMER,
    SESSIONS_OF_NEWCOMERS,
    RelayLimits,
    RelayPlace,
)


def fill(limits: RelayLimits, *, peers: int, member: bool) -> list[RelayPlace]:
    """Let each peer open as many sessions as it may."""
    places = []
    for number in range(peers):
        while not limits.why_not(f"{member}{number}", member=member):
            places.append(limits.begin(f"{member}{number}", member=member))
            places[-1].opened()
    return places


def test_one_newcomer_and_all_newcomers_are_bounded_and_leave_room_for_members() -> None:
    limits = RelayLimits()
    one = fill(limits, peers=1, member=False)
    assert len(one) == SESSIONS_OF_NEWCOMER
    fill(limits, peers=100, member=False)
    assert limits.sessions == SESSIONS_OF_NEWCOMERS
    assert not limits.why_not("member", member=True)


def test_members_are_bounded_one_by_one_and_in_all() -> None:
    limits = RelayLimits()
    assert len(fill(limits, peers=1, member=True)) == SESSIONS_OF_MEMBER
    fill(limits, peers=100, member=True)
    assert limits.sessions == MAX_SESSIONS


def test_half_open_requests_are_bounded_and_end_once() -> None:
    limits = RelayLimits()
    places = []
    for number in range(1000):
        asker = f"p{number % 100}"
        if not limits.why_not(asker, member=True):
            places.append(limits.begin(asker, member=True))
    assert len(places) == MAX_HALF_OPEN
    limits = RelayLimits()
    held = [limits.begin("p", member=True) for _ in range(HALF_OPEN_OF_PEER)]
    assert limits.why_not("p", member=True)
    held[0].opened()
    assert not limits.why_not("p", member=True)
    for place in (*held, *held):
        place.end()
    assert limits.sessions == 0
