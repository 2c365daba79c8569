"""What the page learns of the chain: the pool, and one account's money, as it becomes claimable."""

from __future__ import annotations

import trio
from msgspec.structs import replace
from trio.testing import MockClock

from contracts.devnet.genesis import COIN
from daemon.chain.rewards_watch import LOOK_S, money_on_chain, watch_rewards
from protocol.chain.errors import ChainUnreachable
from protocol.journal import JournalEvent, RewardsReport
from protocol.ports.offload import inline
from tests.daemon.chain import paid_homes
from tests.daemon.chain.command_runner import CommandRunner
from tests.protocol.settlement.paid import wallet


def test_money_on_chain_follows_an_account_from_heartbeat_to_claim(
    commands: CommandRunner,
) -> None:
    for i in range(3):
        commands.home(i)
        commands.heartbeat(i)
    reader, account = commands.world.client(None), wallet(1).address

    def look() -> RewardsReport:
        return money_on_chain(reader, commands.homes[1], account)

    faucet = commands.world.faucet()
    assert faucet.wait(faucet.fund(1000 * COIN), 10).done
    found = look()
    assert (found.pool, found.account, found.payout) == (str(1000 * COIN), account, account)
    assert found.heartbeat_at_s > 0
    assert found.epoch_ends_at_s > found.heartbeat_at_s
    assert (found.claimable, found.pending, found.pending_at_s, found.note) == ("0", "0", 0, "")

    commands.world.pass_time(paid_homes.EPOCH_S)
    assert commands.run(0, "settle").code == 0
    found = look()
    assert found.pending_at_s > 0
    assert "has not arrived yet" in found.note
    commands.share_dataset(0, 1)
    found = look()
    assert (found.claimable, found.pending, found.note) == ("0", str(500 * COIN), "")

    commands.world.pass_time(paid_homes.DELAY_S)
    assert commands.run(0, "settle").code == 0
    found = look()
    assert (found.earned, found.claimable) == (str(500 * COIN), str(500 * COIN))
    assert (found.pending, found.pending_at_s) == ("0", 0)
    assert commands.run(1, "rewards", "claim").code == 0
    found = look()
    assert (found.claimed, found.claimable) == (str(500 * COIN), "0")
    # Without an account, the pool alone is told.
    pool = money_on_chain(reader, commands.homes[1], None)
    assert (pool.pool, pool.account, pool.claimable) == (str(500 * COIN), "", "")


async def test_watch_keeps_the_last_figures_while_the_chain_is_silent(
    autojump_clock: MockClock,
) -> None:
    known = RewardsReport(profile="hypergpu", pool="7")
    answers: list[RewardsReport | Exception] = [
        known,
        ChainUnreachable("connection refused"),
        replace(known, pool="8"),
    ]
    events: list[JournalEvent] = []

    def look() -> RewardsReport:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with trio.move_on_after(2.5 * LOOK_S):
        await watch_rewards(look, events.append, inline)
    seen = [event for event in events if isinstance(event, RewardsReport)]
    assert [one.pool for one in seen] == ["7", "7", "8"]
    assert "does not answer: " in seen[1].note
    assert [bool(one.note) for one in seen] == [False, True, False]
