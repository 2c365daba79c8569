"""Homes behind routers and one public node: real daemons, real packets, real routers."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.harness.router_lab import Router, RouterKind, missing_for_routers, router_lab
from tests.e2e.swarm import Daemon, Machine, Swarm, certified

pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing_for_routers()), reason=missing_for_routers() or "-"),
]

# From the last start: the workers load torch, and two newcomers become members.
FIRST_S = 40.0
IN_A_ROW = 10


def path(daemon: Daemon, other: Daemon) -> str:
    status = daemon.status()
    return next((one.path for one in status.peers if one.peer == other.peer), "") if status else ""


def full_rounds(daemon: Daemon, count: int) -> set[int]:
    status = daemon.status()
    rounds = certified(status) if status is not None else {}
    return {number for number, known in rounds.items() if len(known.contributors) == count}


@pytest.mark.parametrize(
    ("kinds", "lans", "expected"),
    [
        (("cone", "cone"), ("192.168.1", "192.168.2"), "punched"),
        (("cone", "cone"), ("192.168.1", "192.168.1"), "punched"),
        (("cone", "symmetric"), ("192.168.1", "192.168.2"), "relayed"),
        (("symmetric", "symmetric"), ("192.168.1", "192.168.1"), "relayed"),
    ],
)
def test_two_homes_and_one_public_node_certify_together(
    tmp_path: Path, kinds: tuple[RouterKind, ...], lans: tuple[str, ...], expected: str
) -> None:
    routers = [Router(kind=kind, lan=lan) for kind, lan in zip(kinds, lans, strict=True)]
    with router_lab(1, *routers) as lab:
        places = [lab.public(0), lab.home(0), lab.home(1)]
        machines = [Machine("0.0.0.0", place.prefix) for place in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            public = swarm.begin("public")
            one, two = swarm.join("one", public), swarm.join("two", public)
            everybody = (public, one, two)
            swarm.until(
                lambda: all(full_rounds(daemon, 3) for daemon in everybody),
                "a certificate counts all three",
                FIRST_S,
            )
            first = min(full_rounds(public, 3))
            swarm.until(
                lambda: set(range(first, first + IN_A_ROW)) <= full_rounds(public, 3),
                "ten rounds in a row count all three",
                60.0,
            )
            assert (path(one, two), path(two, one)) == (expected, expected)
            assert (path(one, public), path(public, one)) == ("direct", "direct")
