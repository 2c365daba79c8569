"""A state comes from several peers at once, and is served for as long as a peer reads it."""

from __future__ import annotations

import trio
from msgspec.structs import replace

from daemon.swarm.multi_peer_download import PEERS_AT_ONCE, SILENT_S
from daemon.swarm.piece_download import ASKED_AHEAD
from daemon.swarm.state_download import KnownState
from protocol.averaging.outer_step import state_leaves
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES
from tests.daemon.swarm.state_holders import (
    LEAVES,
    MOMENTUM,
    RUN,
    SIZE,
    TIP,
    UPLINK_BPS,
    VALUE,
    Holder,
    Scenario,
    vector,
)


def test_download_from_several_holders_uses_all_their_uplinks() -> None:
    """Holders once sent one after the other, at the rate of one uplink.

    At 20 Mbit/s a model of 5 million parameters took longer than a round.
    """
    took: dict[int, float] = {}
    for holders in (1, 3):
        scenario = Scenario(holders)

        async def story(scenario: Scenario = scenario, holders: int = holders) -> None:
            reason, took[holders] = await scenario.fetch()
            assert reason == ""

        scenario.play(story)
        assert scenario.is_whole()
    assert took[1] > 11.0
    assert took[3] < 0.45 * took[1]


def test_download_does_not_wait_for_a_holder_that_cannot_be_dialled() -> None:
    """A node once dialled the first holder for 15 s, and again for each newer certificate."""
    scenario = Scenario(2)

    async def story() -> None:
        first, second = (holder.network.peer for holder in scenario.holders)
        scenario.swarm.sever(scenario.downloader.peer, first)
        await trio.sleep(20.0)
        reason, took = await scenario.fetch()
        assert reason == ""
        assert took < 13.0
        assert scenario.download is not None
        assert set(scenario.download.given) == {second}

    scenario.play(story)
    assert scenario.is_whole()


def test_connected_holders_come_before_any_number_that_cannot_be_dialled() -> None:
    """The places for peers at once were all taken by dials that led nowhere."""
    scenario = Scenario(PEERS_AT_ONCE + 2)

    async def story() -> None:
        *gone, last = (holder.network.peer for holder in scenario.holders)
        for peer in gone:
            scenario.swarm.sever(scenario.downloader.peer, peer)
        await trio.sleep(20.0)
        reason, took = await scenario.fetch()
        assert reason == ""
        assert took < 13.0
        assert scenario.download is not None
        assert set(scenario.download.given) == {last}

    scenario.play(story)
    assert scenario.is_whole()


def test_download_continues_where_a_holder_died() -> None:
    scenario = Scenario(2, uplink_bps=UPLINK_BPS)

    async def story() -> None:
        scenario.swarm.schedule.at(
            trio.current_time() + 3.0,
            lambda _: scenario.swarm.kill(scenario.holders[0].network.peer),
            None,
        )
        reason, _ = await scenario.fetch()
        assert reason == ""
        assert scenario.download is not None
        assert len(scenario.download.given) == 2
        assert scenario.download.received_bytes < SIZE + 8 * STATE_CHUNK_BYTES, (
            "chunks that have arrived are not fetched again"
        )

    scenario.play(story)
    assert scenario.is_whole()


def test_download_over_a_slow_downlink_asks_for_no_chunk_twice() -> None:
    """Near its end a download once asked two holders for each chunk.

    On a downlink that is slower than the holders, the second copies delayed the first.
    """
    scenario = Scenario(4, uplink_bps=UPLINK_BPS, downlink_bps=UPLINK_BPS / 4)

    async def story() -> None:
        reason, seconds = await scenario.fetch()
        assert reason == ""
        assert scenario.download is not None
        assert scenario.download.received_bytes == SIZE
        assert len(scenario.download.given) == 3, "four chunks of each"
        assert seconds < 1.2 * 4 * 12, "the downlink limits it"

    scenario.play(story)
    assert scenario.is_whole()


def test_fast_holder_takes_over_the_chunks_of_a_slow_one() -> None:
    """Without that, the download waits for four chunks at the rate of the slowest holder."""
    scenario = Scenario(1)
    scenario.holders.append(Holder(scenario.swarm, 2, uplink_bps=UPLINK_BPS / 40))

    async def story() -> None:
        reason, seconds = await scenario.fetch()
        assert reason == ""
        assert seconds < 20.0
        assert scenario.download is not None
        assert scenario.download.received_bytes <= SIZE + ASKED_AHEAD * STATE_CHUNK_BYTES

    scenario.play(story)
    assert scenario.is_whole()


def test_download_is_finished_although_the_holder_removed_the_checkpoint() -> None:
    """A state was once served for three rounds, which is too short on a link that needs four."""
    scenario = Scenario(1)

    async def story() -> None:
        async def save_later_rounds() -> None:
            for number in range(2, 8):
                await trio.sleep(1.5)
                await scenario.holders[0].keep(bytes([number]) * 32, number, vector(number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(save_later_rounds)
            reason, _ = await scenario.fetch()
        assert reason == ""
        assert TIP not in scenario.holders[0].leaves
        assert await scenario.holders[0].disk.open_state(TIP) is None

    scenario.play(story)
    assert scenario.is_whole()


def test_download_copies_chunks_that_are_known_to_be_equal() -> None:
    scenario = Scenario(1)
    other = VALUE.copy()
    # One chunk differs.
    other[:10] += 1.0
    # The leaves are right, but the vectors have changed since.
    damaged = KnownState(LEAVES, vector(9), vector(9))

    async def story() -> None:
        reason, took = await scenario.fetch(
            damaged, KnownState(state_leaves(other, MOMENTUM), other, MOMENTUM)
        )
        assert reason == ""
        assert took < 2.0
        assert scenario.download is not None
        assert scenario.download.received_bytes == STATE_CHUNK_BYTES
        assert scenario.download.reused_bytes == SIZE - STATE_CHUNK_BYTES

    scenario.play(story)
    assert scenario.is_whole()


def test_download_refuses_chunks_that_are_not_certified_and_asks_another_peer() -> None:
    scenario = Scenario(2)

    async def story() -> None:
        kept = scenario.holders[0].medium.checkpoints[RUN]
        # The leaves of this holder still lead to the certified state.
        kept[0] = replace(kept[0], anchor=vector(7))
        reason, _ = await scenario.fetch()
        assert reason == ""

    scenario.play(story)
    assert scenario.is_whole()
    assert scenario.refused == ["bad_proof"]


def test_download_fails_soon_when_no_peer_keeps_the_state() -> None:
    scenario = Scenario(2)

    async def story() -> None:
        reason, took = await scenario.fetch(tip=b"n" * 32)
        assert "keeps no state of this certificate" in reason
        assert took < SILENT_S

    scenario.play(story)
