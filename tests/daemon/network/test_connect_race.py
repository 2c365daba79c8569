"""The first address that answers wins, whatever the others do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import trio
from trio.testing import MockClock

from daemon.network.connect_race import ATTEMPT_DELAY_S, ConnectRace, Target

SILENT, REFUSING, FIRST, SECOND = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"
TIMEOUT_S = 8.0


class FakeInternet:
    """Hosts that say nothing, refuse, or answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[str] = []
        monkeypatch.setattr(trio, "open_tcp_stream", self.open)

    async def open(self, host: str, port: int, **_options: float) -> trio.SocketStream:
        self.called.append(host)
        if host == SILENT:
            await trio.sleep_forever()
        if host == REFUSING:
            raise ConnectionRefusedError("refused")
        ours, _theirs = trio.socket.socketpair()
        return trio.SocketStream(ours)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> FakeInternet:
    return FakeInternet(monkeypatch)


def targets(*hosts: str) -> Iterator[Target[int]]:
    return (Target(index, "ip4", host, 4001) for index, host in enumerate(hosts))


async def test_a_silent_address_costs_one_delay(
    internet: FakeInternet, autojump_clock: MockClock
) -> None:
    race = ConnectRace(targets(SILENT, FIRST), TIMEOUT_S)
    found = await race.next_stream()
    assert found is not None
    assert found[0].key == 1
    assert trio.current_time() == pytest.approx(ATTEMPT_DELAY_S)
    await found[1].aclose()


async def test_a_refusing_address_costs_nothing_and_is_named(
    internet: FakeInternet, autojump_clock: MockClock
) -> None:
    race = ConnectRace(targets(REFUSING, FIRST), TIMEOUT_S)
    found = await race.next_stream()
    assert found is not None
    assert (found[0].key, trio.current_time()) == (1, 0.0)
    assert race.reasons == [f"{REFUSING}: refused"]
    await found[1].aclose()


async def test_after_a_wrong_peer_the_overtaken_and_the_untried_addresses_follow(
    internet: FakeInternet, autojump_clock: MockClock
) -> None:
    race = ConnectRace(targets(SILENT, FIRST, SECOND), TIMEOUT_S)
    won = []
    while (found := await race.next_stream()) is not None:
        won.append(found[0].key)
        await found[1].aclose()
    assert won == [1, 2]
    assert internet.called == [SILENT, FIRST, SILENT, SECOND, SILENT]
    assert race.reasons == [f"{SILENT}: no answer within 8 s"]


async def test_addresses_are_taken_from_the_source_as_attempts_begin(
    internet: FakeInternet, autojump_clock: MockClock
) -> None:
    """Each address costs a charge, so none is taken in vain."""
    source = targets(*[FIRST] * 100)
    found = await ConnectRace(source, TIMEOUT_S).next_stream()
    assert found is not None
    await found[1].aclose()
    assert next(islice(source, 1)).key == 1


async def test_without_an_answer_the_race_ends_with_every_reason(
    internet: FakeInternet, autojump_clock: MockClock
) -> None:
    race = ConnectRace(targets(SILENT, SILENT, REFUSING), TIMEOUT_S)
    assert await race.next_stream() is None
    assert len(race.reasons) == race.tried == 3
    assert trio.current_time() == pytest.approx(TIMEOUT_S + ATTEMPT_DELAY_S)
