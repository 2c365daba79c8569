"""The page of a home's own node, over a real control socket."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from daemon.control.server import serve_control
from daemon.node.own_page import OwnNode
from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from protocol.status import fold, status_at
from tests.daemon.observer.http_client import aask
from tests.story import AT, certified, day, folded

pytestmark = pytest.mark.real


async def test_own_page_shows_the_node_its_new_rounds_and_its_silence(tmp_path: Path) -> None:
    state = folded(day())
    bridge = Bridge()
    node = OwnNode(tmp_path, bridge.feed)

    async def status() -> bytes:
        return msgspec.json.encode(status_at(state, AT))

    async def look() -> None:
        bridge.publish(await trio.to_thread.run_sync(node.look))
        bridge._rendered_at = -10.0

    async with web_server(bridge, ObserverSettings(port=0)) as bound:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, tmp_path, {"status": status})
            await look()
            metrics = (await aask(bound, "/metrics")).body
            assert b'hypergpu_rounds_total{result="late"} 1.0' in metrics
            assert b'hypergpu_phase_seconds_count{phase="train"} 6.0' in metrics
            assert (await aask(bound, "/api/v1/events")).json()["events"] == []
            fold(state, certified(7, "late", at=AT + 1))
            await look()
            (event,) = (await aask(bound, "/api/v1/events")).json()["events"]
            assert (event["kind"], event["round"]["number"]) == ("round", 7)
            nursery.cancel_scope.cancel()
        await look()
        silent = (await aask(bound, "/api/v1/run")).json()
        assert (silent["level"], silent["run"]["number"]) == ("bad", 7)
        assert "No daemon is running" in silent["verdict"]
        assert (await aask(bound, "/api/v1/history")).status == 503
        assert (await aask(bound, "/api/training/stop", "POST")).status == 403
