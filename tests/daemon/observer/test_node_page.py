"""The page that a node serves of itself, over real sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.config.settings import Config, PageConfig
from daemon.journal import Journal
from daemon.node.node_page import HOST, MORE_PORTS, NodePage
from daemon.observer.settings import BoundAddress
from protocol.journal import Warned
from tests.daemon.observer.http_client import aask
from tests.story import AT, certified, day

pytestmark = pytest.mark.real


def page_of(home: Path, port: int) -> tuple[NodePage, Journal]:
    journal = Journal(None, lambda: AT)
    config = Config(home=home, page=PageConfig(port=port))
    return NodePage(config, journal), journal


def bound_at(url: str) -> BoundAddress:
    assert url.startswith(f"http://{HOST}:")
    return BoundAddress(host=HOST, port=int(url.rstrip("/").rpartition(":")[2]))


def free_port() -> int:
    """Return a port with free ones above it."""
    with socket.create_server((HOST, 0)) as found:
        return min(int(found.getsockname()[1]), 65535 - MORE_PORTS)


async def test_node_page_shows_the_journal_and_its_new_events(tmp_path: Path) -> None:
    page, journal = page_of(tmp_path, 0)
    for event in day():
        journal.record(event, at=event.at)
    async with trio.open_nursery() as nursery:
        bound = bound_at(await nursery.start(page.run))
        run = (await aask(bound, "/api/v1/run")).json()
        assert run["run"]["number"] == journal.status().run.number
        journal.record(certified(7, "late"))
        (event,) = (await aask(bound, "/api/v1/events")).json()["events"]
        assert (event["kind"], event["round"]["number"]) == ("round", 7)
        assert (await aask(bound, "/")).status == 200
        assert (await aask(bound, "/api/training/stop", "POST")).status == 403
        nursery.cancel_scope.cancel()


async def test_node_page_of_a_second_node_uses_the_next_free_port(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server((HOST, port)):
        async with trio.open_nursery() as nursery:
            urls = [await nursery.start(page_of(tmp_path, port)[0].run) for _ in range(2)]
            ports = [bound_at(url).port for url in urls]
            assert port not in ports
            assert ports[0] != ports[1]
            for one in urls:
                assert (await aask(bound_at(one), "/healthz")).status == 200
            nursery.cancel_scope.cancel()


async def test_node_without_a_usable_address_runs_without_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.node.node_page.HOST", "192.0.2.1")
    page, journal = page_of(tmp_path, 8766)
    heard: list[object] = []
    journal.add_listener(heard.append)
    async with trio.open_nursery() as nursery:
        assert await nursery.start(page.run) == ""
    (warning,) = heard
    assert isinstance(warning, Warned)
    assert msgspec.structs.asdict(warning)["code"] == "PAGE"
    assert "192.0.2.1" in warning.message
