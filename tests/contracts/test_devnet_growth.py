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
from tests.contracts.testnets import START_S, InProcessTransport, genesis

BLOCK_S = 2
# These are a quarter of the real values, since every block waits for the disk.
SEGMENT, KEPT = 64, 48
# The limit for an empty block. A complete one takes 780 bytes; one of 64 stays complete here.
MOST_BYTES_A_BLOCK = 20


class FileDevnet:
    """A devnet on a file, whose blocks come when the test says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = float(START_S)
        self.hashes: list[bytes] = []
        self.open()

    def open(self) -> None:
        self.devnet = Devnet(genesis(), SqliteStore(self.path), lambda: self.now_s)
        self.transport = InProcessTransport(Rpc(self.devnet, auto_mine=False))
        if not self.hashes:
            self.hashes.append(self.devnet.head.hash)

    def make_blocks(self, blocks: int) -> None:
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
            sleep=lambda _: self.make_blocks(1),
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
def file_devnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileDevnet]:
    for name, value in (
        ("empty_blocks.SEGMENT", SEGMENT),
        ("empty_blocks.KEPT", KEPT),
        ("evm.KEPT", KEPT),
    ):
        monkeypatch.setattr(f"contracts.devnet.{name}", value)
    made = FileDevnet(tmp_path / "chain.sqlite")
    yield made
    made.devnet.close()


def test_empty_blocks_are_small_on_disk_and_read_back_unchanged(file_devnet: FileDevnet) -> None:
    anna = file_devnet.chain("anna")
    file_devnet.make_blocks(SEGMENT // 2)
    registered_s = int(file_devnet.now_s)
    assert anna.wait(anna.register("anna"), 10).done
    file_devnet.make_blocks(2 * SEGMENT + KEPT)
    before, blocks = file_devnet.size_bytes(), len(file_devnet.hashes)
    file_devnet.make_blocks(2 * SEGMENT)
    assert (file_devnet.size_bytes() - before) / (
        len(file_devnet.hashes) - blocks
    ) < MOST_BYTES_A_BLOCK

    # A process that starts here has none of the old headers in memory.
    file_devnet.devnet.close()
    file_devnet.open()
    found = [
        file_devnet.transport("eth_getBlockByNumber", (hex(number), False))
        for number in range(len(file_devnet.hashes))
    ]
    assert [block["hash"] for block in found] == [
        "0x" + block_hash.hex() for block_hash in file_devnet.hashes
    ]
    assert [block["parentHash"] for block in found[1:]] == [block["hash"] for block in found[:-1]]
    assert file_devnet.devnet.header(len(file_devnet.hashes)) is None

    later = file_devnet.chain("anna")
    assert later.agent(later.account).name == "anna"
    both = (registered_s, registered_s + 10 * BLOCK_S)
    assert later.heard((later.account,), *both) == {later.account}
    assert later.heard((later.account,), both[1], int(file_devnet.now_s)) == frozenset()
    assert later.wait(later.heartbeat(1, b"c" * 32), 10).done


def test_a_reorganization_stops_at_the_oldest_complete_block(file_devnet: FileDevnet) -> None:
    file_devnet.make_blocks(2 * SEGMENT + KEPT)
    head = file_devnet.devnet.head.block_number
    with pytest.raises(ValueError, match=f"the last {KEPT} are kept whole"):
        file_devnet.devnet.go_back(head - KEPT - 1)
    file_devnet.devnet.go_back(head - KEPT)
    del file_devnet.hashes[head - KEPT + 1 :]
    # A later time gives the new blocks other hashes.
    file_devnet.now_s += 1
    file_devnet.make_blocks(SEGMENT + KEPT)
    assert [
        header.hash
        for number in range(len(file_devnet.hashes))
        if (header := file_devnet.devnet.header(number))
    ] == file_devnet.hashes
