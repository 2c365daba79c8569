"""Lookups of accounts for strangers: one at a time, few in all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.config.settings import ChainConfig
from daemon.node.observer_rewards import MAX_WAITING, RewardsLookup
from daemon.observer.api.resources import RewardsBody, Unavailable
from protocol.run.manifest import seal
from tests.protocol.settlement.paid import PAID

ANSWER_S = 20.0


def account(number: int) -> str:
    return f"0x{number:040x}"


class SlowLookup(RewardsLookup):
    """Its chain answers when `answer` is set."""

    def __init__(self, home: Path) -> None:
        super().__init__(ChainConfig(), seal(PAID), home)
        self.asked: list[str] = []
        self.answer = threading.Event()

    def _ask(self, account: str, as_of: float) -> RewardsBody:
        self.asked.append(account)
        assert self.answer.wait(ANSWER_S)
        return RewardsBody(as_of=as_of, address=account, pays=True)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MAX_WAITING + 1) as made:
        yield made


def test_rewards_lookup_refuses_at_once_where_enough_wait_for_the_chain(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    lookup = SlowLookup(tmp_path)
    asking = [pool.submit(lookup, account(number), 1.0) for number in range(MAX_WAITING + 1)]
    try:
        deadline = time.monotonic() + ANSWER_S
        # One of them ends while the chain is silent: the one that found no place.
        while not any(one.done() for one in asking):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        lookup.answer.set()
    errors = [error for one in asking if (error := one.exception(ANSWER_S)) is not None]
    assert [type(error) for error in errors] == [Unavailable]
    assert len(lookup.asked) == MAX_WAITING
    assert lookup(account(99), 1.0).pays


def test_rewards_lookup_asks_once_for_an_account(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    lookup = SlowLookup(tmp_path)
    asking = [pool.submit(lookup, account(1), 1.0) for _ in range(MAX_WAITING)]
    lookup.answer.set()
    addresses = {one.result(ANSWER_S).address for one in asking}
    assert addresses == {lookup(account(1), 2.0).address}
    assert len(lookup.asked) == 1
