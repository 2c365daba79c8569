"""The devnet as a process: it answers, gives coins, ends on a signal, and survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.client import ChainSettings, HttpTransport, connect
from contracts.devnet.evm import Devnet
from contracts.devnet.genesis import COIN, dev_account, dev_key
from contracts.devnet.reverts import RpcRefusal
from contracts.devnet.rpc import FAUCET_COINS
from contracts.devnet.store import SqliteStore
from contracts.signers import signer_of
from protocol.chain.keccak import address_of
from tests.contracts.testnets import EvmTestnet, genesis

REPOSITORY = Path(__file__).parents[2]


def start(home: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "daemon.cli.main",
            "--home",
            home,
            "--json",
            "devnet",
            "--port",
            "0",
            "--block-time",
            "0",
            "--delay",
            "0",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def test_advanced_time_counts_from_the_last_block() -> None:
    """The devnet's clock never falls behind the last block.

    Blocks that are made faster than one a second have timestamps ahead of the clock. A delay that
    the test waited for must have passed nevertheless.
    """
    chain = Devnet(genesis(), SqliteStore(None), lambda: 1_800_000_000.0)
    for _ in range(5):
        chain.mine()
    before = chain.head.timestamp
    chain.advance(600)
    chain.mine()
    assert chain.head.timestamp - before >= 600
    chain.mine()
    chain.advance(600)
    chain.advance(600)
    chain.mine()
    assert chain.head.timestamp - before >= 1800
    chain.close()


@pytest.mark.real
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_its_state_survives_a_restart(tmp_path: Path, ending: signal.Signals) -> None:
    process, url = start(tmp_path)
    poor = signer_of(dev_key("somebody new"))
    HttpTransport(url)("hypergpu_faucet", (poor.address,))
    chain = connect(ChainSettings(chain_id=4195600, urls=(url,), confirmations=1), poor, None)
    assert chain.balance(poor.address) == FAUCET_COINS * COIN
    assert chain.wait(chain.register("somebody"), 10).done
    before = chain.head()
    process.send_signal(ending)
    assert process.wait(20) == (0 if ending == signal.SIGTERM else -ending)
    process, url = start(tmp_path)
    again = connect(ChainSettings(chain_id=4195600, urls=(url,), confirmations=1), poor, None)
    assert again.head() == before
    assert again.agent(poor.address).name == "somebody"
    assert again.wait(again.heartbeat(1, b"c" * 32), 10).done
    process.terminate()
    assert process.wait(20) == 0


def test_a_file_that_began_with_another_genesis_is_refused(tmp_path: Path) -> None:
    Devnet(genesis(), SqliteStore(tmp_path / "chain"), lambda: 0.0).close()
    with pytest.raises(ValueError, match="another genesis"):
        Devnet(genesis(1_790_000_001), SqliteStore(tmp_path / "chain"), lambda: 0.0)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"{", -32700),
        (b"7", -32600),
        (b'{"id": 1, "method": "eth_noSuchThing"}', -32601),
        (b'{"id": 1, "method": 5}', -32600),
        (b'{"id": 1, "method": "eth_getBalance", "params": ["0x12"]}', -32602),
        (b'{"id": 1, "method": "eth_call", "params": [{"to": "0x12"}]}', -32602),
        (b'{"id": 1, "method": "eth_sendRawTransaction", "params": ["0x00"]}', -32000),
    ],
)
def test_nonsense_is_answered_with_an_error(request_: bytes, code: int) -> None:
    assert json.loads(EvmTestnet().rpc.answer(request_))["error"]["code"] == code


def test_transactions_that_geth_refuses_are_refused_with_its_messages() -> None:
    testnet = EvmTestnet(auto_mine=False)
    signer = signer_of(dev_key("anna"))

    def raw(**changed: Any) -> bytes:
        plain = {
            "chainId": testnet.chain_id,
            "nonce": 0,
            "to": address_of(b"\x01" * 20),
            "value": 1,
            "gas": 21_000,
        }
        fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}
        return bytes(signer.sign_transaction(plain | fees | changed).raw_transaction)

    testnet.devnet.submit(raw())
    for changed, words in (
        ({}, "already known"),
        ({"value": 2}, "replacement transaction underpriced"),
        ({"chainId": 1}, "invalid chain id"),
        ({"gas": 20_000}, "intrinsic gas too low"),
        ({"gas": 10**9}, "exceeds block gas limit"),
        ({"value": 10**30, "nonce": 1}, "insufficient funds"),
    ):
        with pytest.raises(RpcRefusal, match=words):
            testnet.devnet.submit(raw(**changed))
    testnet.devnet.submit(raw(value=2, maxFeePerGas=2 * 10**10, maxPriorityFeePerGas=2 * 10**9))
    testnet.devnet.mine()
    with pytest.raises(RpcRefusal, match="nonce too low"):
        testnet.devnet.submit(raw(value=3))
    assert testnet.devnet.balance(b"\x01" * 20) == 2
    assert testnet.account("anna") == dev_account("anna")
