"""The provider table: strangers cannot push a run's members out of a record."""

from __future__ import annotations

import random

from daemon.network.libp2p.dht import SHARDS, shards_of
from daemon.network.libp2p.provider_table import (
    KEPT_S,
    MAX_ANSWER,
    MAX_KEYS,
    MAX_KEYS_OF_PEER,
    MAX_OF_PREFIX,
    MAX_PROVIDERS,
    ProviderTable,
)
from daemon.network.limits.prefixes import LOOPBACK_PREFIX

RUN = b"r" * 32


def table(*members: str) -> ProviderTable[str]:
    return ProviderTable(lambda peer: peer in members, random.Random(1))


def fill(
    kept: ProviderTable[str], count: int, now: float = 1.0, prefix: str = LOOPBACK_PREFIX
) -> None:
    for n in range(count):
        kept.add(RUN, f"{prefix} stranger {n}", f"stranger {n}", prefix, now)


def test_a_member_is_in_every_answer_however_many_strangers_announce_themselves() -> None:
    kept = table("member")
    kept.add(RUN, "member", "member", LOOPBACK_PREFIX, 0.0)
    fill(kept, 500)
    for _ in range(20):
        answer = kept.answer(RUN, 2.0)
        assert "member" in answer
        assert len(answer) == MAX_ANSWER


def test_who_announced_itself_early_stays_though_nothing_is_known_of_it() -> None:
    kept = table()
    kept.add(RUN, "early", "early", "home", 0.0)
    fill(kept, 500)
    answers = {name for _ in range(100) for name in kept.answer(RUN, 2.0)}
    assert "early" in answers
    assert len(answers) == MAX_PROVIDERS, "who asks again sees others"


def test_strangers_of_one_network_fill_no_record() -> None:
    kept = table()
    fill(kept, 500, prefix="203.0.113.0/24")
    assert kept.add(RUN, "late", "late", "home", 2.0)
    assert len({name for _ in range(100) for name in kept.answer(RUN, 2.0)}) == MAX_OF_PREFIX + 1


def test_who_is_silent_is_forgotten_within_the_hour() -> None:
    kept = table()
    fill(kept, 20)
    kept.add(RUN, "again", "again", "home", 1.0)
    kept.add(RUN, "again", "again", "home", KEPT_S)
    assert kept.answer(RUN, KEPT_S + 2.0) == ["again"]


def test_made_up_keys_push_out_neither_our_own_nor_those_with_many_peers() -> None:
    kept = table()
    kept.own(RUN)
    kept.add(RUN, "me", "me", "home", 0.0)
    other = b"o" * 32
    for peer in ("one", "two"):
        kept.add(other, peer, peer, "home", 0.0)
    for n in range(2 * MAX_KEYS):
        kept.add(n.to_bytes(32, "big"), f"stranger {n // MAX_KEYS_OF_PEER}", "x", "a", 1.0)
    assert len(kept) == MAX_KEYS
    assert kept.answer(RUN, 1.0) == ["me"]
    assert sorted(kept.answer(other, 1.0)) == ["one", "two"]
    assert (
        not kept.add(b"more" * 8, "stranger 0", "x", "a", 1.0)
        or kept._of_peer["stranger 0"] <= MAX_KEYS_OF_PEER
    )


def test_a_run_is_announced_under_keys_that_lie_apart() -> None:
    shards = shards_of(RUN)
    assert (shards[0], len(set(shards))) == (RUN, SHARDS)
    assert len({shard[0] >> 4 for shard in shards}) > 1
