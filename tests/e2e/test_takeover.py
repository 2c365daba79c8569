"""Fresh keys certify among themselves beside a real run of rules 4, and nobody follows them."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
import trio

from tests.e2e.forger import Forger, certificates_of
from tests.e2e.stranger import stranger_at
from tests.e2e.swarm import RUN, Daemon, Swarm

OPEN_RUN = (
    "rules = 4\n"
    + RUN
    + """
[admission]
policy = "open"
"""
)
# How much of its own pace the run keeps under attack.
PACE_KEPT = 0.9
# The forger reads the daemons' certificates again after so many forgeries.
READ_EVERY = 20

pytestmark = pytest.mark.real


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an attack."""

    # Rounds in a second, before the attack and during it.
    pace_before: float
    pace: float
    # Requests for forged states.
    fetched: int
    # Forged certificates among the daemons' own.
    adopted: int
    refused: int


def number_of(daemon: Daemon) -> int:
    return daemon.now().run.number


async def attack(
    first: Daemon, second: Daemon, root: Path, tries: int, pause_s: float, before_s: float
) -> Attack:
    """Send forged certificates of random shapes, after `before_s` of watching the run alone."""
    status = await trio.to_thread.run_sync(first.now)
    forgers: list[Forger] = []
    async with stranger_at(first, root, lambda one: forgers.append(Forger(one, 4))) as stranger:
        manifest, (forger,) = await stranger.manifest(), forgers
        began, at = await trio.to_thread.run_sync(number_of, first), time.monotonic()
        await trio.sleep(before_s)
        middle, then = await trio.to_thread.run_sync(number_of, first), time.monotonic()
        for number in range(tries):
            if number % READ_EVERY == 0:
                lineage = await certificates_of(stranger, manifest)
            await forger.attack(lineage, manifest, status.run.parameters, pause_s)
        after, end = await trio.to_thread.run_sync(number_of, first), time.monotonic()
        held = await certificates_of(stranger, manifest)
        own = {one.hash for one in held.path(held.root, held.best)}
        tips = {
            bytes.fromhex((await trio.to_thread.run_sync(one.now)).run.tip)
            for one in (first, second)
        }
        return Attack(
            pace_before=(middle - began) / (then - at),
            pace=(after - middle) / (end - then),
            fetched=forger.fetched,
            adopted=len(forger.forged & (own | tips)),
            refused=await stranger.count("bad_certificate"),
        )


def attacked(root: Path, tries: int, pause_s: float, before_s: float) -> Attack:
    with Swarm(root, run=OPEN_RUN) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(2, first, second)
        result = trio.run(attack, first, second, root, tries, pause_s, before_s)
        swarm.stop(first, second)
        assert swarm.agreement(first, second).agreed
    return result


def test_keys_without_a_vote_take_over_no_open_run(tmp_path: Path) -> None:
    result = attacked(tmp_path, tries=60, pause_s=0.1, before_s=0.0)
    assert result.refused > 0
    assert result.pace > 0, "the daemons certify no rounds beside the forger"
    assert (result.fetched, result.adopted) == (0, 0)


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_forgeries_neither_move_nor_slow_a_run(tmp_path: Path) -> None:
    """Figure of issue 16: none adopted, none fetched for, rounds within 10% of their own pace."""
    result = attacked(tmp_path, tries=1000, pause_s=0.04, before_s=40.0)
    print(result)
    assert result.refused > 0
    assert (result.fetched, result.adopted) == (0, 0)
    assert result.pace >= PACE_KEPT * result.pace_before
