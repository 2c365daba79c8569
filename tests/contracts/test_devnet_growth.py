"""A devnet that runs for months: empty blocks take little space, and their headers stay."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.chain_settings import ChainSettings
from contracts.client import connect
from contracts.devnet.evm import Devnet
from contracts.devnet.genesis import dev_key
from contracts.devnet.rpc import Rpc
from contracts.devnet.store import SqliteStore
from contracts.signers import signer_of
from protocol.chain.port import Chain
from tests.contracts.ground import START_S, RpcTransport, genesis

BLOCK_S = 2
# A quarter of the real ones, since every block waits for the disk.
SEGMENT, KEPT = 64, 48
# The limit for an empty block. A whole one takes 780 bytes, and one of 64 stays whole here.
MOST_BYTES_A_BLOCK = 20


class Standing:
    """A devnet on a file, whose blocks come when the test says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = float(START_S)
        self.hashes: list[bytes] = []
        self.begin()

    def begin(self) -> None:
        self.devnet = Devnet(genesis(), SqliteStore(self.path), lambda: self.now_s)
        self.transport = RpcTransport(Rpc(self.devnet, auto_mine=False))
        if not self.hashes:
            self.hashes.append(self.devnet.head.hash)

    def stand(self, blocks: int) -> None:
        for _ in range(blocks):
            self.now_s += BLOCK_S
            self.hashes.append(self.devnet.mine().hash)

    def chain(self, name: str) -> Chain:
        settings = ChainSettings(chain_id=self.devnet.chain_id, urls=(), confirmations=1)
        return connect(
            settings,
            signer_of(dev_key(name)),
            None,
            now=lambda: self.now_s,
            sleep=lambda _: self.stand(1),
            transports=[self.transport],
        )

    def size_bytes(self) -> int:
        reader = sqlite3.connect(self.path)
        try:
            return int(
                reader.execute("SELECT SUM(LENGTH(key) + LENGTH(value)) FROM kept").fetchone()[0]
            )
        finally:
            reader.close()


@pytest.fixture
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    for name, value in (
        ("empty_blocks.SEGMENT", SEGMENT),
        ("empty_blocks.KEPT", KEPT),
        ("evm.KEPT", KEPT),
    ):
        monkeypatch.setattr(f"contracts.devnet.{name}", value)
    made = Standing(tmp_path / "chain.sqlite")
    yield made
    made.devnet.close()


def test_empty_blocks_take_next_to_nothing_and_are_what_they_were(standing: Standing) -> None:
    anna = standing.chain("anna")
    standing.stand(SEGMENT // 2)
    registered_s = int(standing.now_s)
    assert anna.wait(anna.register("anna"), 10).done
    standing.stand(2 * SEGMENT + KEPT)
    before, blocks = standing.size_bytes(), len(standing.hashes)
    standing.stand(2 * SEGMENT)
    assert (standing.size_bytes() - before) / (len(standing.hashes) - blocks) < MOST_BYTES_A_BLOCK

    # A process that begins here knows none of the old headers.
    standing.devnet.close()
    standing.begin()
    found = [
        standing.transport("eth_getBlockByNumber", (hex(number), False))
        for number in range(len(standing.hashes))
    ]
    assert [block["hash"] for block in found] == [
        "0x" + block_hash.hex() for block_hash in standing.hashes
    ]
    assert [block["parentHash"] for block in found[1:]] == [block["hash"] for block in found[:-1]]
    assert standing.devnet.header(len(standing.hashes)) is None

    later = standing.chain("anna")
    assert later.agent(later.account).name == "anna"
    both = (registered_s, registered_s + 10 * BLOCK_S)
    assert later.heard((later.account,), *both) == {later.account}
    assert later.heard((later.account,), both[1], int(standing.now_s)) == frozenset()
    assert later.wait(later.heartbeat(1, b"c" * 32), 10).done


def test_a_reorganization_goes_no_deeper_than_what_is_whole(standing: Standing) -> None:
    standing.stand(2 * SEGMENT + KEPT)
    head = standing.devnet.head.block_number
    with pytest.raises(ValueError, match=f"the last {KEPT} are kept whole"):
        standing.devnet.go_back(head - KEPT - 1)
    standing.devnet.go_back(head - KEPT)
    del standing.hashes[head - KEPT + 1 :]
    standing.now_s += 1  # other blocks than before
    standing.stand(SEGMENT + KEPT)
    assert [
        header.hash
        for number in range(len(standing.hashes))
        if (header := standing.devnet.header(number))
    ] == standing.hashes
