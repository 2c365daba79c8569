"""Tests the limits on connections of the API."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import trio

from protocol.inference.layers import LayerRange
from simulator.fakes.stage import FAKE_MODEL, FakeStage
from tests.daemon.api.local_generations import KEY, LocalGenerations, calling, client, served

pytestmark = pytest.mark.real

LIMITS = "daemon.api.api_connection"


def generations() -> LocalGenerations:
    whole = LayerRange(first=0, stop=FAKE_MODEL.layers)
    return LocalGenerations(FakeStage(whole, 1 << 20, model=FAKE_MODEL), FAKE_MODEL)


async def connect(url: str, sent: bytes = b"") -> trio.SocketStream:
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    stream = await trio.open_tcp_stream(where.hostname, where.port)
    await stream.send_all(sent)
    return stream


async def is_closed(stream: trio.SocketStream) -> bool:
    try:
        return not await stream.receive_some(1)
    except trio.BrokenResourceError:
        return True


@pytest.mark.parametrize("sent", [b"", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX: "])
async def test_connection_that_sends_no_whole_request_is_closed(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{LIMITS}.IDLE_S", 0.1)
    async with served(generations(), FAKE_MODEL) as url:
        with trio.fail_after(20):
            async with await connect(url, sent) as stream:
                assert await is_closed(stream)


async def test_server_without_a_free_place_drops_the_connection_that_is_idle_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{LIMITS}.SPARE_CONNECTIONS", 2)
    monkeypatch.setattr(f"{LIMITS}.SLOW_S", 0.0)
    async with served(generations(), FAKE_MODEL, max_open=1) as url:
        with trio.fail_after(20):
            strangers = [await connect(url) for _ in range(3)]
            listed = await calling(lambda: list(client(url).models.list()))
            assert [model.id for model in listed] == ["fake"]
            assert await is_closed(strangers[0])
            for stranger in strangers:
                await stranger.aclose()


async def test_server_whose_connections_are_all_new_rejects_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{LIMITS}.SPARE_CONNECTIONS", 0)
    monkeypatch.setattr(f"{LIMITS}.SLOW_S", 600.0)
    async with served(generations(), FAKE_MODEL, max_open=1) as url:
        with trio.fail_after(20):
            async with await connect(url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as first:
                # An answer shows that the server has taken the connection.
                assert (await first.receive_some(12)) == b"HTTP/1.1 401"
                async with await connect(url) as second:
                    assert await is_closed(second)


async def test_answer_may_take_longer_than_a_connection_may_be_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{LIMITS}.IDLE_S", 0.05)
    slow = generations()

    async def ask() -> str:
        answer = await calling(
            lambda: client(url).completions.create(model="fake", prompt="a", max_tokens=400, seed=1)
        )
        return str(answer.choices[0].finish_reason)

    async with served(slow, FAKE_MODEL) as url:
        with trio.fail_after(30):
            assert await ask() == "length"


@pytest.mark.parametrize(("key", "status"), [(KEY, b"400"), ("other", b"401")])
async def test_body_in_another_encoding_than_it_says_is_refused_and_not_logged(
    key: str, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    body = "Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip"
    async with served(generations(), FAKE_MODEL) as url:
        with trio.fail_after(20):
            async with await connect(url, (head + body).encode()) as stream:
                assert await stream.receive_some(12) == b"HTTP/1.1 " + status
                while not await is_closed(stream):
                    pass
    assert not caplog.records
