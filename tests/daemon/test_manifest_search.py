"""A newcomer asks every entry point at once, and the first answer counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from daemon.config.settings import Config, NetworkConfig
from daemon.network.network import LibP2PNetwork
from daemon.node.manifest_search import find_manifest
from daemon.swarm.manifest_exchange import serve_manifest
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.run.manifest import Manifest, SignedManifest, seal
from tests.daemon.network.nodes import make_node

pytestmark = pytest.mark.real

ABSENT = Signer(bytes(31) + b"\x09").peer
# TEST-NET-1: packets to it vanish, or no route leads there.
SILENT = f"/ip4/192.0.2.1/tcp/4001/p2p/{ABSENT}"
TIMEOUT_S = 20.0
# A search that asked one after the other would wait for the silent node first.
ANSWER_S = 6.0


def a_run(name: str) -> SignedManifest:
    return seal(Manifest(name=name, task="simple_cnn"))


@asynccontextmanager
async def member(home: Path, seed: int, signed: SignedManifest) -> AsyncIterator[LibP2PNetwork]:
    node = make_node(home, seed)
    serve_manifest(node, signed, lambda *_args: None, lambda _event: None)
    async with node.running():
        yield node


def settings(home: Path, *join: str) -> Config:
    return Config(home=home, network=NetworkConfig(listen_host="127.0.0.1", join=join))


async def test_a_silent_entry_point_delays_nothing(tmp_path: Path) -> None:
    run = a_run("here")
    with trio.fail_after(TIMEOUT_S):
        async with member(tmp_path, 1, run) as node:
            with trio.fail_after(ANSWER_S):
                config = settings(tmp_path, SILENT, node.addresses[0])
                assert await find_manifest(config, tmp_path) == run


async def test_nodes_of_other_runs_do_not_count_for_an_invitation(tmp_path: Path) -> None:
    run, other = a_run("here"), a_run("there")
    with trio.fail_after(TIMEOUT_S):
        async with member(tmp_path, 1, other) as wrong, member(tmp_path, 2, run) as right:
            config = settings(tmp_path, wrong.addresses[0], right.addresses[0])
            assert await find_manifest(config, tmp_path, run.run) == run


async def test_without_an_answer_the_error_names_the_addresses_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.node.manifest_search.JOIN_S", 1.5)
    refusing = f"/ip4/127.0.0.1/tcp/1/p2p/{ABSENT}"
    with pytest.raises(UserError, match="No node answered at") as caught:
        await find_manifest(settings(tmp_path, refusing), tmp_path)
    assert "127.0.0.1" in caught.value.why
