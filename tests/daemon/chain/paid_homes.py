"""Homes with wallets, certificates and the settings of a chain, and the chains beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from contracts.client import ChainSettings, HttpTransport, connect
from contracts.devnet.anvil import anvil_serving
from contracts.devnet.evm import Devnet
from contracts.devnet.genesis import COIN, GenesisSettings, dev_account, dev_key, genesis_of
from contracts.devnet.server import serving
from contracts.signers import signer_of
from daemon.chain.home_runs import MANIFEST_FILE
from daemon.disk.atomic import no_fault
from daemon.disk.chain_file import ChainFile
from daemon.disk.new_file import write_new
from daemon.home.layout import CONFIG_FILE, ensure_home
from daemon.swarm.chain_sync import pack_record
from daemon.wallet import files
from daemon.wallet.keystore import wallet_of
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import genesis
from protocol.chain.keccak import ZERO_ADDRESS
from protocol.chain.port import Chain
from protocol.run.manifest import seal
from simulator.fakes.chain import FakeChain
from simulator.fakes.ledger import FakeLedger
from tests.contracts.testnets import ANVIL
from tests.protocol.settlement.paid import CHAIN, PAID, PAID_RUN, certificate, wallet

# This work factor makes scrypt quick.
QUICK = 1 << 8
EPOCH_S, DELAY_S = 3600, 600
PASSWORD = "correct horse"


class ClockedChain(Protocol):
    """A chain and its clock."""

    url: str

    def client(self, key: bytes | None) -> Chain:
        """Return an account's client, or one that only reads, without a file."""

    def faucet(self) -> Chain:
        """Return the client of an account with many coins."""

    def pass_time(self, seconds: int) -> None:
        """Advance the chain's clock."""


class EvmChain:
    """The contracts on py-evm, behind JSON-RPC."""

    def __init__(self, url: str, chain: Devnet) -> None:
        self.url, self._chain = url, chain

    def client(self, key: bytes | None) -> Chain:
        settings = ChainSettings(chain_id=CHAIN, urls=(self.url,), confirmations=1)
        return connect(settings, None if key is None else signer_of(key), None)

    def faucet(self) -> Chain:
        return self.client(dev_key("faucet"))

    def pass_time(self, seconds: int) -> None:
        with self._chain.lock:
            self._chain.advance(seconds)
            self._chain.mine()


class AnvilChain:
    """The contracts on anvil."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._ask = HttpTransport(url)

    def client(self, key: bytes | None) -> Chain:
        settings = ChainSettings(chain_id=CHAIN, urls=(self.url,), confirmations=1)
        return connect(settings, None if key is None else signer_of(key), None)

    def faucet(self) -> Chain:
        return self.client(dev_key("faucet"))

    def pass_time(self, seconds: int) -> None:
        self._ask("evm_increaseTime", (seconds,))
        self._ask("evm_mine", ())


class SimulatedChain:
    """The same rules in plain Python."""

    # No server listens here, so a client that asks this URL fails.
    url = "http://127.0.0.1:9"

    def __init__(self, settlers: tuple[str, ...]) -> None:
        self.now_s = 1_800_000_000.0
        funded = {wallet(i).address: 10 * COIN for i in range(6)} | {
            dev_account("faucet"): 10**6 * COIN
        }
        self.ledger = FakeLedger(
            lambda: self.now_s,
            owner=dev_account("owner"),
            settlers=settlers,
            needed=1,
            epoch_s=EPOCH_S,
            delay_s=DELAY_S,
            funded=funded,
        )

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def client(self, key: bytes | None) -> Chain:
        account = wallet_of(key).address if key else ZERO_ADDRESS
        return FakeChain(self.ledger, account, self.sleep, chain_id=CHAIN)

    def faucet(self) -> Chain:
        return self.client(dev_key("faucet"))

    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        self.ledger.look()


@contextmanager
def devnet(settlers: tuple[str, ...]) -> Iterator[EvmChain]:
    """Serve a devnet in memory with a block for each transaction."""
    with serving(_genesis(settlers), None, host="127.0.0.1", port=0, block_s=0, now=time.time) as (
        url,
        chain,
    ):
        yield EvmChain(url, chain)


@contextmanager
def on_anvil(settlers: tuple[str, ...]) -> Iterator[AnvilChain]:
    """Serve the same genesis by anvil."""
    with anvil_serving(ANVIL, _genesis(settlers)) as url:
        yield AnvilChain(url)


def _genesis(settlers: tuple[str, ...]) -> dict[str, Any]:
    """Give each wallet of `paid.wallet` coins for fees."""
    settings = GenesisSettings(
        owner=dev_account("owner"),
        settlers=settlers,
        needed=1,
        start_s=int(time.time()) - 5,
        epoch_s=EPOCH_S,
        delay_s=DELAY_S,
        funded={wallet(i).address: 10 * COIN for i in range(6)}
        | {dev_account("faucet"): 10**6 * COIN},
    )
    return genesis_of(settings)


def home(
    root: Path, i: int, url: str, certificates: list[OpenCertificate], payout: str | None = None
) -> Path:
    """Make the home of person `i` with a wallet, settings, and verified certificates."""
    path = root / f"home-{i}"
    ensure_home(path)
    files.create(path, wallet(i).private_key(), PASSWORD, scrypt_n=QUICK)
    if payout:
        files.set_payout(path, payout)
    write_new(path / CONFIG_FILE, f'[chain]\nrpc = ["{url}"]\nconfirmations = 1\n'.encode())
    folder = path / "runs" / PAID_RUN.hex()
    folder.mkdir(parents=True)
    write_new(folder / MANIFEST_FILE, msgspec.msgpack.encode(seal(PAID)))
    add_certificates(path, certificates)
    return path


def add_certificates(path: Path, certificates: list[OpenCertificate]) -> None:
    chain = ChainFile(path / "runs" / PAID_RUN.hex() / "certificates", no_fault, lambda _: None)
    for one in certificates:
        chain.append(one.outcome.number, pack_record([one.raw]))


def rounds(*samples: Mapping[int, int]) -> list[OpenCertificate]:
    """Make consecutive certificates. Round k counts `samples[k]` of each person."""
    tip, made = genesis(PAID_RUN), []
    for seq, each in enumerate(samples, 1):
        opened, tip = certificate(tip, each, seq=seq)
        made.append(opened)
    return made
