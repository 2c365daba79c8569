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
    providers: ProviderTable[str], count: int, now: float = 1.0, prefix: str = LOOPBACK_PREFIX
) -> None:
    for n in range(count):
        providers.add(RUN, f"{prefix} stranger {n}", f"stranger {n}", prefix, now)


def test_a_member_is_in_every_answer_beside_500_strangers() -> None:
    providers = table("member")
    providers.add(RUN, "member", "member", LOOPBACK_PREFIX, 0.0)
    fill(providers, 500)
    for _ in range(20):
        answer = providers.answer(RUN, 2.0)
        assert "member" in answer
        assert len(answer) == MAX_ANSWER


def test_an_unknown_peer_that_announced_itself_early_stays() -> None:
    providers = table()
    providers.add(RUN, "early", "early", "home", 0.0)
    fill(providers, 500)
    answers = {name for _ in range(100) for name in providers.answer(RUN, 2.0)}
    assert "early" in answers
    assert len(answers) == MAX_PROVIDERS, "repeated questions get different providers"


def test_strangers_of_one_prefix_do_not_fill_a_record() -> None:
    providers = table()
    fill(providers, 500, prefix="203.0.113.0/24")
    assert providers.add(RUN, "late", "late", "home", 2.0)
    assert (
        len({name for _ in range(100) for name in providers.answer(RUN, 2.0)}) == MAX_OF_PREFIX + 1
    )


def test_a_provider_that_is_silent_is_forgotten() -> None:
    providers = table()
    fill(providers, 20)
    providers.add(RUN, "again", "again", "home", 1.0)
    providers.add(RUN, "again", "again", "home", KEPT_S)
    assert providers.answer(RUN, KEPT_S + 2.0) == ["again"]


def test_made_up_keys_evict_neither_our_own_key_nor_keys_with_several_peers() -> None:
    providers = table()
    providers.own(RUN)
    providers.add(RUN, "me", "me", "home", 0.0)
    other = b"o" * 32
    for peer in ("one", "two"):
        providers.add(other, peer, peer, "home", 0.0)
    for n in range(2 * MAX_KEYS):
        providers.add(n.to_bytes(32, "big"), f"stranger {n // MAX_KEYS_OF_PEER}", "x", "a", 1.0)
    assert len(providers) == MAX_KEYS
    assert providers.answer(RUN, 1.0) == ["me"]
    assert sorted(providers.answer(other, 1.0)) == ["one", "two"]
    assert (
        not providers.add(b"more" * 8, "stranger 0", "x", "a", 1.0)
        or providers._of_peer["stranger 0"] <= MAX_KEYS_OF_PEER
    )


def test_the_keys_of_a_run_are_far_apart() -> None:
    shards = shards_of(RUN)
    assert (shards[0], len(set(shards))) == (RUN, SHARDS)
    assert len({shard[0] >> 4 for shard in shards}) > 1
