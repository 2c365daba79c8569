"""The payee: its binding, its sentences about missing parts, and data sets through the swarm."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from daemon.chain.datasets import (
    PROTOCOL,
    fetch_dataset,
    keep_dataset,
    load_dataset,
    serve_datasets,
)
from daemon.chain.payee import Payee
from daemon.config.settings import ChainConfig, OracleConfig
from daemon.swarm.frames import frame
from daemon.wallet import files
from daemon.wallet.password import Password
from protocol.certificates.tip import genesis
from protocol.chain.account_binding import check_binding
from protocol.chain.keccak import account_bytes, address_of
from protocol.errors import UserError
from protocol.journal import ChainReport, JournalEvent
from protocol.ports.byte_stream import ByteStream
from protocol.ports.offload import inline
from protocol.run.manifest import SignedManifest, seal
from protocol.settlement.dataset import EpochTerms, amount_bytes, make_dataset
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.swarm import FakeSwarm
from tests.daemon.chain.paid_homes import PASSWORD, QUICK
from tests.protocol.rounds import MANIFEST, people
from tests.protocol.settlement.paid import CHAIN, CONTRACT, PAID, PAID_RUN, certificate, wallet

ME = people(4)[0].peer
OPEN = Password(text=PASSWORD, source="test")
RPC = ChainConfig(rpc=("http://127.0.0.1:9",))


def earning(
    home: Path,
    password: Password | None,
    *,
    signed: SignedManifest | None = None,
    settings: ChainConfig = RPC,
) -> tuple[Payee, list[JournalEvent]]:
    events: list[JournalEvent] = []
    made = Payee(
        home=home,
        settings=settings,
        oracle=OracleConfig(),
        signed=signed or seal(PAID),
        peer=ME,
        name="attic",
        password=password,
        record=events.append,
    )
    return made, events


def said(events: list[JournalEvent]) -> list[str]:
    return [event.state for event in events if isinstance(event, ChainReport)]


def test_an_unlocked_wallet_signs_a_binding_before_the_chain_is_asked(tmp_path: Path) -> None:
    files.create(tmp_path, wallet(0).private_key(), PASSWORD, scrypt_n=QUICK)
    cold = address_of(b"\x0c" * 20)
    files.set_payout(tmp_path, cold)
    node, events = earning(tmp_path, OPEN)
    binding = node.prepare()
    assert binding is not None
    assert check_binding(binding, ME, CHAIN, CONTRACT) == wallet(0).raw_address
    assert binding.payout == account_bytes(cold)
    # The reason differs from "no chain", the status of a run without a chain.
    assert said(events) == ["waiting"]


def test_a_locked_wallet_uses_its_earlier_binding(tmp_path: Path) -> None:
    files.create(tmp_path, wallet(0).private_key(), PASSWORD, scrypt_n=QUICK)
    never, events = earning(tmp_path, None)
    assert never.prepare() is None
    assert said(events) == ["locked"]
    before = earning(tmp_path, OPEN)[0].prepare()
    again, events = earning(tmp_path, None)
    assert again.prepare() == before
    assert said(events) == ["locked"]
    # The old binding would pay the old address.
    files.set_payout(tmp_path, address_of(b"\x0d" * 20))
    assert earning(tmp_path, None)[0].prepare() is None


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x93" + b"\xc4\x21" + bytes(33)])
def test_a_damaged_binding_is_ignored(tmp_path: Path, damage: bytes) -> None:
    files.create(tmp_path, wallet(0).private_key(), PASSWORD, scrypt_n=QUICK)
    earning(tmp_path, OPEN)[0].prepare()
    next((tmp_path / "bindings").iterdir()).write_bytes(damage)
    assert earning(tmp_path, None)[0].prepare() is None


def test_missing_parts_are_reported_and_raise_nothing(tmp_path: Path) -> None:
    node, events = earning(tmp_path, None)
    assert node.prepare() is None
    assert said(events) == ["none"]
    files.create(tmp_path, wallet(0).private_key(), PASSWORD, scrypt_n=QUICK)
    wrong, events = earning(tmp_path, Password(text="wrong", source="test"))
    assert wrong.prepare() is None
    assert said(events) == ["locked"]
    assert "wrong" not in str(events[0])
    nowhere, events = earning(tmp_path, OPEN, settings=ChainConfig())
    assert nowhere.prepare() is not None
    assert said(events) == ["none"]
    free, events = earning(tmp_path, OPEN, signed=seal(MANIFEST))
    assert (free.prepare(), events) == (None, [])


def test_data_sets_are_fetched_from_peers_and_false_ones_are_skipped(tmp_path: Path) -> None:
    opened, tip = certificate(genesis(PAID_RUN), {0: 10, 1: 30})
    dataset, _ = make_dataset(
        PAID_RUN, PAID, [EpochTerms(epoch=0, pool=amount_bytes(100), tip=tip.hash)], [opened]
    )
    homes = [tmp_path / str(i) for i in range(4)]
    name = keep_dataset(homes[2], dataset)

    async def lie(stream: ByteStream) -> None:
        await stream.receive_some(64)
        await stream.send_all(frame(b"not what was asked for"))
        await stream.send_eof()

    async def story() -> None:
        world = FakeSwarm(random.Random(7), same_link(LinkModel()))

        networks = [world.network(bytes([index]) * 32) for index in range(4)]
        networks[1].serve(PROTOCOL, lie)
        for index in (0, 2, 3):
            serve_datasets(networks[index], homes[index], inline)
        # The peers are a liar, one without the data set, and one that has it.
        peers = [networks[i].peer for i in (1, 3, 2)]
        async with world.running(), AsyncExitStack() as lives:
            for network in networks:
                await lives.enter_async_context(network.running())
            while len(networks[0].links()) < 3:
                await trio.sleep(0.1)
            assert await fetch_dataset(networks[0], peers, homes[0], name, inline) == dataset
            with pytest.raises(UserError, match="None of 2 connected peers"):
                await fetch_dataset(networks[0], peers[:2], homes[0], b"\x01" * 32, inline)

    run_virtual(story)
    # The fetched copy can be served to others.
    assert load_dataset(homes[0], name) == dataset
    (homes[0] / "settlements" / name.hex()).write_bytes(b"damaged")
    with pytest.raises(UserError, match="is damaged"):
        load_dataset(homes[0], name)
