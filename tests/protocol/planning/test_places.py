"""Places in a plan of rules 4: voters first, then members by longest wait, a few newcomers."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.membership.record import genesis_record
from protocol.membership.role import Role
from protocol.planning.places import NEWCOMERS_PLACES, placed
from tests.protocol.membership.histories import manifest_of, run_of

VOTERS = [f"voter {i}" for i in range(32)]
MEMBERS = [f"member {i}" for i in range(100)]
NEWCOMERS = [f"newcomer {i}" for i in range(100)]
MANIFEST = manifest_of(["12D3KooWQC8WCemSYM68Zie5w1HwAorQgRGHJX98SYM5zAK4PtTh"])
RECORD = genesis_record(run_of(MANIFEST), MANIFEST)
PLACES = 64


def first_places(members: int, newcomers: int, planned: dict[str, int] | None = None) -> list[str]:
    """Return who gets a place of all voters, and of as many members and newcomers."""
    ready = [*NEWCOMERS[:newcomers], *MEMBERS[:members], *VOTERS]
    roles = {
        **dict.fromkeys(VOTERS, Role.VOTER),
        **dict.fromkeys(MEMBERS, Role.MEMBER),
        **dict.fromkeys(NEWCOMERS, Role.NEWCOMER),
    }
    record = replace(RECORD, planned=planned or {})
    return placed(ready, roles, record, PLACES)[:PLACES]


def test_every_ready_voter_has_a_place() -> None:
    assert set(VOTERS) <= set(first_places(100, 100))


def test_newcomers_get_at_most_sixteen_places_where_members_want_them() -> None:
    assert sum(peer in NEWCOMERS for peer in first_places(100, 100)) == NEWCOMERS_PLACES
    assert sum(peer in MEMBERS for peer in first_places(100, 100)) == 16


def test_places_that_no_member_wants_go_to_newcomers() -> None:
    chosen = first_places(4, 100)
    assert sum(peer in MEMBERS for peer in chosen) == 4
    assert sum(peer in NEWCOMERS for peer in chosen) == 28


def test_members_that_waited_longest_come_first() -> None:
    planned = dict.fromkeys(MEMBERS[:90], 10)
    planned |= dict.fromkeys(MEMBERS[40:44], 7)
    chosen = [peer for peer in first_places(100, 100, planned) if peer in MEMBERS]
    assert set(chosen) >= {*MEMBERS[90:], *MEMBERS[40:44]}
    assert len(chosen) == 16


def test_nobody_waits_long_where_members_take_turns() -> None:
    """100 members without a vote, 32 places beside the voters: four plans hold everybody."""
    planned: dict[str, int] = {}
    for number in range(1, 6):
        for peer in first_places(100, 0, planned):
            planned[peer] = number
    assert set(MEMBERS) <= planned.keys()
