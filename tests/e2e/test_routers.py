"""Homes behind routers and one public node: real daemons, real packets, real routers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from simulator.harness.router_lab import SUBNET, Router, RouterKind, missing_for_routers, router_lab
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


def counted_after(daemon: Daemon, number: int, members: set[str]) -> bool:
    """Whether a certificate after `number` counts at least these peers."""
    status = daemon.status()
    rounds = certified(status) if status is not None else {}
    return any(one > number and members <= set(known.contributors) for one, known in rounds.items())


# A lost round and the next one.
AGAIN_S = 15.0
# How much longer rounds may be where two of three members have no path.
LONGER = 1.2


def test_a_pair_goes_on_when_its_relay_is_killed_beside_another_one(tmp_path: Path) -> None:
    routers = [Router(kind="symmetric"), Router(kind="symmetric", lan="192.168.2")]
    with router_lab(2, *routers) as lab:
        places = [lab.public(0), lab.public(1), lab.home(0), lab.home(1)]
        machines = [Machine("0.0.0.0", place.prefix) for place in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            first = swarm.begin("first")
            second = swarm.join("second", first)
            one, two = swarm.join("one", first, second), swarm.join("two", first, second)
            swarm.until(lambda: full_rounds(one, 4), "a certificate counts all four", 2 * FIRST_S)
            swarm.until(lambda: path(one, two) == "relayed", "the pair is relayed", FIRST_S)
            # The pair votes only once certificates have made it members.
            swarm.until_round(one.now().run.number + 5, one)
            first.kill()
            killed_at = one.now().run.number
            pair = {one.peer, two.peer}
            swarm.until(
                lambda: counted_after(second, killed_at + 1, pair), "the pair counts again", AGAIN_S
            )


def test_a_punched_pair_goes_on_without_the_node_that_introduced_it(tmp_path: Path) -> None:
    with router_lab(1, Router(), Router(lan="192.168.2")) as lab:
        places = [lab.public(0), lab.home(0), lab.home(1)]
        machines = [Machine("0.0.0.0", place.prefix) for place in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            public = swarm.begin("public")
            one, two = swarm.join("one", public), swarm.join("two", public)
            swarm.until(lambda: full_rounds(one, 3), "a certificate counts all three", FIRST_S)
            swarm.until(lambda: path(one, two) == "punched", "the pair is punched", FIRST_S)
            # Both homes vote only once certificates have made them members.
            swarm.until_round(one.now().run.number + 5, one)
            public.kill()
            killed_at = one.now().run.number
            pair = {one.peer, two.peer}
            swarm.until(
                lambda: counted_after(one, killed_at + 1, pair), "the pair certifies alone", AGAIN_S
            )


def test_a_pair_that_needs_a_relay_reads_what_is_missing_without_one(tmp_path: Path) -> None:
    routers = [Router(kind="symmetric"), Router(kind="symmetric", lan="192.168.2")]
    with router_lab(1, *routers) as lab:
        places = [lab.public(0), lab.home(0), lab.home(1)]
        machines = [Machine("0.0.0.0", place.prefix) for place in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            public = swarm.begin("public")
            one, two = swarm.join("one", public), swarm.join("two", public)
            swarm.until(lambda: full_rounds(one, 3), "a certificate counts all three", 2 * FIRST_S)
            public.kill()
            for home in (one, two):
                swarm.until(
                    lambda home=home: (  # type: ignore[misc]
                        "no node that can be called is connected" in home.now().verdict
                    ),
                    f"{home.name} reads what is missing",
                    FIRST_S,
                )


def passed_views(daemon: Daemon, since: float) -> int:
    """Tries that ended without a certificate, from the daemon's journal."""
    events = map(json.loads, (daemon.home / "journal.jsonl").read_text().splitlines())
    return sum(event["type"] == "ViewPassed" and event["at"] > since for event in events)


NEW_WAN, KNOWN_S = 150, 60.0


@pytest.mark.parametrize(("kind", "expected"), [("cone", "punched"), ("symmetric", "relayed")])
def test_an_address_that_changes_costs_one_try_at_most(
    tmp_path: Path, kind: RouterKind, expected: str
) -> None:
    routers = [Router(kind=kind), Router(kind=kind, lan="192.168.2")]
    with router_lab(1, *routers) as lab:
        places = [lab.public(0), lab.home(0), lab.home(1)]
        machines = [Machine("0.0.0.0", place.prefix) for place in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            public = swarm.begin("public")
            one, two = swarm.join("one", public), swarm.join("two", public)
            swarm.until(lambda: full_rounds(one, 3), "a certificate counts all three", 2 * FIRST_S)
            swarm.until(lambda: path(one, two) == expected, f"the pair is {expected}", FIRST_S)
            # Both homes vote only once certificates have made them members.
            swarm.until_round(one.now().run.number + 5, one)
            changed = time.time()
            lab.change_wan(0, NEW_WAN)
            new = f"{SUBNET}.{NEW_WAN}"

            def known() -> bool:
                seen = public.status()
                at = seen and next((p.address for p in seen.peers if p.peer == one.peer), "")
                return bool(at) and new in at and one.now().you.reach.observed == new

            swarm.until(known, "the others know the new address", KNOWN_S)
            number = public.now().run.number
            everybody = {public.peer, one.peer, two.peer}
            swarm.until(
                lambda: counted_after(public, number, everybody), "all three count again", KNOWN_S
            )
            print(f"all three count {time.time() - changed:.1f} s after the change")
            assert passed_views(public, changed) <= 1


def seconds_a_round(swarm: Swarm, daemon: Daemon, rounds: int) -> float:
    number, began = daemon.now().run.number, time.monotonic()
    swarm.until_round(number + 1, daemon)
    number, began = daemon.now().run.number, time.monotonic()
    swarm.until_round(number + rounds, daemon)
    return (time.monotonic() - began) / rounds


def test_a_pair_without_any_path_costs_the_others_little_and_reads_why(tmp_path: Path) -> None:
    routers = [Router(kind="symmetric"), Router(kind="symmetric", lan="192.168.2")]
    with router_lab(1, *routers) as lab:
        places = [lab.public(0), lab.home(0), lab.home(1)]
        machines = [Machine("0.0.0.0", place.prefix) for place in places]
        with Swarm(tmp_path, round_s=3.0, machines=machines) as swarm:
            public = swarm.begin("public", network={"listen_host": "0.0.0.0", "relay": False})
            one = swarm.join("one", public)
            swarm.until_round(3, public, one)
            alone_s = seconds_a_round(swarm, public, IN_A_ROW)
            two = swarm.join("two", public)

            def reads_why() -> bool:
                return any(
                    "No path to" in known.verdict
                    for daemon in (one, two)
                    if (known := daemon.status()) is not None
                )

            swarm.until(reads_why, "the one that is left out reads why", 2 * FIRST_S)
            with_two_s = seconds_a_round(swarm, public, IN_A_ROW)
            print(f"{alone_s:.2f} s a round without the second home, {with_two_s:.2f} s with it")
            assert with_two_s < LONGER * alone_s
