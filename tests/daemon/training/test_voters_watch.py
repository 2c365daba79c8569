"""A node that heard no voter for a while waits for the grace anew when it hears one."""

from __future__ import annotations

from daemon.services.training.native.rounds.voters_watch import (
    AWAY_GRACES,
    MOST_RETURNS,
    VotersWatch,
)
from daemon.swarm.members import Members
from protocol.messages.beacon import Beacon

GRACE_S = 100.0
AWAY_S = AWAY_GRACES * GRACE_S


def watch() -> tuple[VotersWatch, Members, list[str]]:
    returned: list[str] = []
    members = Members("me", lambda _: None, lambda _: None)
    return VotersWatch("me", members, lambda: returned.append("voter")), members, returned


def hear(members: Members, peer: str, serial: int) -> None:
    beacon = Beacon(
        serial=serial,
        name=peer,
        role="node",
        number=1,
        tip=bytes(32),
        view=0,
        phase="train",
        samples=0,
        loss=None,
        samples_per_second=1.0,
        device="",
        endpoint=None,
        task=b"",
    )
    members.receive(peer, beacon, float(serial))


def test_voters_watch_reports_a_voter_after_a_quarter_of_the_grace_without_any() -> None:
    seen, members, returned = watch()
    seen.look(("me", "other"), GRACE_S, 0.0)
    hear(members, "stranger", 1)
    seen.look(("me", "other"), GRACE_S, AWAY_S / 2)
    assert not returned, "a stranger is no voter, and a node is not its own company"
    hear(members, "other", 2)
    seen.look(("me", "other"), GRACE_S, AWAY_S)
    assert returned == ["voter"]
    seen.look(("me", "other"), GRACE_S, 2 * AWAY_S)
    assert returned == ["voter"]


def test_voters_watch_ignores_a_connection_that_breaks_for_seconds() -> None:
    seen, members, returned = watch()
    hear(members, "other", 1)
    seen.look(("me", "other"), GRACE_S, 0.0)
    members.link_down("other", "reset")
    seen.look(("me", "other"), GRACE_S, 1.0)
    hear(members, "other", 2)
    seen.look(("me", "other"), GRACE_S, AWAY_S / 2)
    assert not returned


def test_voter_that_comes_and_goes_delays_a_node_a_few_times_only() -> None:
    seen, members, returned = watch()
    now, serial = 0.0, 0

    def return_once() -> None:
        nonlocal now, serial
        members.link_down("other", "reset")
        seen.look(("me", "other"), GRACE_S, now)
        now, serial = now + AWAY_S, serial + 1
        hear(members, "other", serial)
        seen.look(("me", "other"), GRACE_S, now)

    for _ in range(MOST_RETURNS + 2):
        return_once()
    assert len(returned) == MOST_RETURNS
    seen.certified()
    return_once()
    assert len(returned) == MOST_RETURNS + 1


def test_voters_watch_says_once_that_the_process_slept() -> None:
    seen, _, _ = watch()
    assert not seen.slept(GRACE_S, 1000.0), "the first look says nothing"
    assert not seen.slept(GRACE_S, 1000.0 + 0.9 * AWAY_S)
    assert seen.slept(GRACE_S, 1000.0 + 2 * AWAY_S)
    assert not seen.slept(GRACE_S, 1001.0 + 2 * AWAY_S)


def test_voters_watch_lets_no_number_of_sleeps_hold_up_a_node_for_good() -> None:
    seen, _, _ = watch()
    slept = [seen.slept(GRACE_S, place * AWAY_S) for place in range(10)]
    assert sum(slept) == MOST_RETURNS
    seen.certified()
    assert seen.slept(GRACE_S, 10 * AWAY_S)
