"""Events as they happen: server-sent events and the WebSocket, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trio

from daemon.observer.api.broadcaster import MAX_WAITING, Broadcaster
from daemon.observer.bridge import Bridge
from daemon.observer.history.event_feed import KEPT_EVENTS, EventFeed
from daemon.observer.history.history_store import HistoryStore
from daemon.observer.server import web_server
from daemon.observer.settings import BoundAddress, ObserverSettings
from protocol.status import fold, status_at
from tests.daemon.observer.test_history_store import an_event, until
from tests.story import AT, certified, day, folded

pytestmark = pytest.mark.real
STREAM = {"Accept": "text/event-stream"}
SOON_S = 20.0


async def read_stream(
    session: aiohttp.ClientSession, bound: BoundAddress, last: int | None = None
) -> AsyncIterator[dict[str, str]]:
    """Yield the events of a stream as fields."""
    headers = STREAM if last is None else {**STREAM, "Last-Event-ID": str(last)}
    async with session.get(f"{bound.url}api/v1/events", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            if not line and "data" in fields:
                yield fields
                fields = {}
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()


async def with_clients(
    bridge: Bridge, story: Callable[[aiohttp.ClientSession, BoundAddress], Awaitable[Any]]
) -> Any:
    """Run an asyncio story in a thread of its own while the server runs."""
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        async def run() -> Any:
            async with aiohttp.ClientSession() as session:
                return await asyncio.wait_for(story(session, bound), SOON_S)

        return await trio.to_thread.run_sync(lambda: asyncio.run(run()))


def bridge_of() -> Bridge:
    bridge = Bridge()
    bridge.publish(status_at(folded(day("observer")), AT))
    return bridge


def say(bridge: Bridge, *texts: str) -> list[int]:
    return [bridge.feed.add(at=AT, kind="notice", level="info", text=text).id for text in texts]


async def test_event_stream_sends_what_happens_and_what_a_client_missed() -> None:
    bridge = bridge_of()
    first, *_ = say(bridge, "one", "two", "three")

    async def story(session: aiohttp.ClientSession, bound: BoundAddress) -> list[str]:
        stream = read_stream(session, bound, first)
        seen = [json.loads((await anext(stream))["data"])["text"] for _ in range(2)]
        say(bridge, "four")
        event = await anext(stream)
        assert event["event"] == "notice"
        assert int(event["id"]) == bridge.feed.last_id
        return [*seen, json.loads(event["data"])["text"]]

    assert await with_clients(bridge, story) == ["two", "three", "four"]


async def test_event_stream_reads_on_from_the_store_after_a_restart(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "run.sqlite", 64_000_000)
    store.open()
    for number in range(1, 6):
        store.add(an_event(number))
    until(lambda: len(store.dates()) == 5)
    bridge = bridge_of()
    bridge.store = store
    bridge.feed.start_after(store.last_id())
    say(bridge, "after the restart")

    async def story(session: aiohttp.ClientSession, bound: BoundAddress) -> list[str]:
        stream = read_stream(session, bound, 3)
        return [json.loads((await anext(stream))["data"])["text"] for _ in range(3)]

    assert await with_clients(bridge, story) == ["Event 4.", "Event 5.", "after the restart"]
    store.close()


async def test_event_stream_says_when_events_are_missing() -> None:
    bridge = bridge_of()
    for number in range(KEPT_EVENTS + 50):
        say(bridge, str(number))

    async def story(session: aiohttp.ClientSession, bound: BoundAddress) -> dict[str, str]:
        return await anext(read_stream(session, bound, 1))

    assert (await with_clients(bridge, story))["event"] == "reset"


async def test_a_client_that_does_not_read_is_dropped_and_others_get_every_event() -> None:
    bridge = bridge_of()

    async def story(session: aiohttp.ClientSession, bound: BoundAddress) -> int:
        slow = socket.create_connection((bound.host, bound.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(
            b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        stream = read_stream(session, bound, say(bridge, "begin")[0])
        count = 0
        for number in range(20):
            say(bridge, f"{number}" + "x" * 100_000)
            await anext(stream)
            count += 1
        slow.close()
        return count

    assert await with_clients(bridge, story) == 20


async def test_broadcaster_drops_a_subscription_that_lags_too_far() -> None:
    def run() -> bool:
        async def story() -> bool:
            feed = EventFeed()
            broadcaster = Broadcaster(feed)
            with broadcaster.subscription() as lagging:
                for number in range(MAX_WAITING + 1):
                    feed.add(at=AT, kind="notice", level="info", text=str(number))
                await asyncio.sleep(0)
                return lagging.dropped and await lagging.get() is None

        return asyncio.run(story())

    assert await trio.to_thread.run_sync(run)


async def test_web_socket_speaks_the_messages_of_the_original_dashboard() -> None:
    bridge = bridge_of()
    state = folded(day("observer"))

    async def story(session: aiohttp.ClientSession, bound: BoundAddress) -> list[str]:
        async with session.ws_connect(f"{bound.url}ws") as socket:
            hello = await socket.receive_json()
            assert (hello["type"], hello["data"]["round"]) == ("connected", 6)
            fold(state, certified(7, "observed", at=AT + 1))
            bridge.feed.add(
                at=AT + 1, kind="round", level="info", text="Round 7.", round=state.rounds[0]
            )
            progress = await socket.receive_json()
            assert (progress["type"], progress["data"]["number"]) == ("training_progress", 7)
            bridge.publish(status_at(state, AT + 1))
            update = await socket.receive_json()
            bridge.publish(status_at(state, AT + 300))
            stalled = await socket.receive_json()
            return [update["type"], stalled["type"]]

    assert await with_clients(bridge, story) == ["metrics_update", "training_error"]


async def test_web_socket_refuses_other_origins_and_plain_requests() -> None:
    async def story(session: aiohttp.ClientSession, bound: BoundAddress) -> tuple[int, int]:
        async with session.get(f"{bound.url}ws") as plain:
            assert (await plain.json())["error"]["code"] == "UPGRADE"
            first = plain.status
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{bound.url}ws", origin="https://evil.example")
        return first, caught.value.status

    assert await with_clients(bridge_of(), story) == (400, 403)
