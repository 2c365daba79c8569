"""Receipts of serving reach settlers, and are settled once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from daemon.chain import served_exchange
from daemon.chain.served_exchange import FOLDER, ServedExchange, load_served
from daemon.chain.settlement import check_root, draft_settlement
from daemon.services.inference import receipt_folder
from protocol.certificates.tip import genesis
from protocol.inference.receipt import decode_receipt
from protocol.ports.offload import inline
from protocol.run.manifest import seal
from simulator.fakes.chain import FakeChain
from simulator.fakes.clock import run_virtual
from simulator.fakes.ledger import FakeLedger
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from tests.protocol.settlement import paid
from tests.protocol.settlement.paid import binding, wallet
from tests.protocol.settlement.test_served import STAGE, STRANGER, paying, served

MANIFEST = paying()
RUN = seal(MANIFEST).run
EPOCH_S = 1000


def write_own(home: Path, layer_tokens: int, session: str = "session") -> None:
    """A receipt of this home's stage, as the stage keeps it."""
    folder = home / receipt_folder.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / session).write_bytes(served(layer_tokens, session=session).receipt)


class World:
    """Nodes of the run in one swarm."""

    def __init__(self, swarm: FakeSwarm, nursery: trio.Nursery) -> None:
        self._swarm, self._nursery = swarm, nursery
        self.said: list[str] = []

    def add(self, home: Path, number: int, *, bound: bool = False) -> FakeNetwork:
        network = self._swarm.network(number.to_bytes(32, "big"))
        own = binding(0, STAGE.peer) if bound else None
        exchange = ServedExchange(home, RUN, MANIFEST, lambda: own, self.said.append)
        exchange.serve(network, inline)

        async def live() -> None:
            async with network.running():
                await exchange.run(network, inline)

        self._nursery.start_soon(live)
        return network


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    swarm = FakeSwarm(random.Random(3), same_link(LinkModel(latency_s=0.01)))
    async with swarm.running(), trio.open_nursery() as nursery:
        yield World(swarm, nursery)
        nursery.cancel_scope.cancel()


def known(home: Path) -> list[int]:
    return [decode_receipt(one.receipt).open().layer_tokens for one in load_served(home, MANIFEST)]


def test_settler_collects_receipts_of_stages_also_through_others(tmp_path: Path) -> None:
    stage, member, settler = (tmp_path / name for name in ("stage", "member", "settler"))

    async def play() -> None:
        write_own(stage, 1_000_000)
        async with world() as made:
            made.add(stage, 1, bound=True)
            made.add(member, 2)
            await trio.sleep(3 * served_exchange.COLLECT_S)
            assert known(member) == [1_000_000]
            # Without a wallet, a stage's receipts are not claimed.
            made.add(settler, 3)
            write_own(settler, 9_000_000, "unbound")
            await trio.sleep(3 * served_exchange.COLLECT_S)
            assert known(settler) == [1_000_000]
            write_own(stage, 4_000_000)
            await trio.sleep(3 * served_exchange.COLLECT_S)
            assert known(settler) == [4_000_000]
            assert not made.said

    run_virtual(play)
    (tmp_path / "settler" / FOLDER / "damaged").write_bytes(b"\xc1")
    assert known(settler) == [4_000_000]


def test_receipts_of_strangers_are_not_kept(tmp_path: Path) -> None:
    exchange = ServedExchange(tmp_path, RUN, MANIFEST, lambda: None, print)
    exchange._take((served(5, payer=STRANGER), served(7), served(6)))
    assert known(tmp_path) == [7]
    assert [one.receipt for one in exchange.known()] == [served(7).receipt]


def test_sessions_for_the_least_work_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_exchange, "MOST_RECEIPTS", 2)
    exchange = ServedExchange(tmp_path, RUN, MANIFEST, lambda: None, print)
    for work in (5, 9, 7):
        exchange._take((served(work, session=f"session {work}"),))
    assert sorted(known(tmp_path)) == [7, 9]


def test_draft_pays_new_receipts_and_everyone_finds_the_same_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paid, "PAID", MANIFEST)
    monkeypatch.setattr(paid, "PAID_RUN", RUN)
    one, tip = paid.certificate(genesis(RUN), {1: 30})
    two, _ = paid.certificate(tip, {1: 30}, seq=2)
    now_s = [0.0]
    settler = wallet(0).address
    ledger = FakeLedger(
        lambda: now_s[0],
        owner=settler,
        settlers=(settler,),
        needed=1,
        epoch_s=EPOCH_S,
        delay_s=1,
        funded={settler: 10**6},
    )

    def wait(seconds: float) -> None:
        now_s[0] += seconds

    chain = FakeChain(ledger, settler, wait)
    assert chain.wait(chain.register("stage"), 30).done
    trainer = FakeChain(ledger, wallet(1).address, wait)
    assert trainer.wait(trainer.register("trainer"), 30).done
    assert chain.wait(chain.fund(8000), 30).done
    now_s[0] = EPOCH_S + 1.0
    bad = replace(served(10), receipt=b"garbage")
    first = draft_settlement(
        chain, RUN, MANIFEST, [one], None, epoch=0, pool=4000, served=[served(10_000), bad]
    )
    # 10 samples of serving beside 30 of training.
    assert first.settled.paid_in_epochs[0] == {
        wallet(0).raw_address: 1000,
        wallet(1).raw_address: 3000,
    }
    assert [terms.served for terms in first.dataset.epochs] == [(served(10_000),)]
    pool = chain.pool()
    agreed = check_root(chain, pool, "pending", first.proposal, first.dataset, RUN, MANIFEST, [one])
    assert agreed.agrees, agreed.reason
    generous = replace(
        first.dataset,
        epochs=(
            replace(first.dataset.epochs[0], served=(served(10_000), served(90_000, session="x"))),
        ),
    )
    differs = check_root(chain, pool, "pending", first.proposal, generous, RUN, MANIFEST, [one])
    assert not differs.agrees
    assert chain.wait(chain.propose(first.proposal), 30).done
    now_s[0] += 10
    assert chain.wait(chain.activate(), 30).done
    now_s[0] += EPOCH_S
    for each in (chain, trainer):
        assert each.wait(each.heartbeat(1, one.hash), 30).done
    now_s[0] += EPOCH_S
    second = draft_settlement(
        chain,
        RUN,
        MANIFEST,
        [one, two],
        first.dataset,
        epoch=chain.pool().epoch - 1,
        pool=4000,
        served=[served(10_000)],
    )
    assert second.dataset.epochs[-1].served == ()
    assert second.settled.paid_in_epochs[1] == {wallet(1).raw_address: 4000}
