"""Homes as daemons leave them, with wallets, certificates and the settings of a devnet, and a devnet under them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.client import ChainSettings, connect
from contracts.devnet.evm import Devnet
from contracts.devnet.genesis import COIN, GenesisSettings, dev_account, dev_key, genesis_of
from contracts.devnet.server import serving
from contracts.signing import signer_of
from daemon.chain.records import MANIFEST_FILE
from daemon.disk.atomic import no_fault
from daemon.disk.chain_file import ChainFile
from daemon.home import CONFIG_FILE, ensure_home, write_new
from daemon.swarm.chain_sync import pack_record
from daemon.wallet import files
from protocol.certificate import OpenCertificate, genesis
from protocol.manifest import seal
from protocol.ports import Chain
from tests.protocol.settlement.paid import CHAIN, PAID, PAID_RUN, certificate, wallet

QUICK = 1 << 8  # scrypt's work
EPOCH_S, DELAY_S = 3600, 600
PASSWORD = "correct horse"


@contextmanager
def devnet(settlers: tuple[str, ...], needed: int = 1) -> Iterator[tuple[str, Devnet]]:
    """In memory, a block for each transaction at once; everybody of `paid.wallet` has coins for fees."""
    funded = {wallet(i).address: 10 * COIN for i in range(6)} | {dev_account("faucet"): 10**6 * COIN}
    settings = GenesisSettings(
        owner=dev_account("owner"),
        settlers=settlers,
        needed=needed,
        start_s=int(time.time()) - 5,
        epoch_s=EPOCH_S,
        delay_s=DELAY_S,
        funded=funded | dict.fromkeys([dev_account("owner")], COIN),
    )
    with serving(genesis_of(settings), None, host="127.0.0.1", port=0, block_s=0, now=time.time) as started:
        yield started


def client(url: str, key: bytes | None) -> Chain:
    """A client with nothing kept."""
    settings = ChainSettings(chain_id=CHAIN, urls=(url,), confirmations=1)
    return connect(settings, None if key is None else signer_of(key), None)


def faucet(url: str) -> Chain:
    return client(url, dev_key("faucet"))


def pass_time(chain: Devnet, seconds: int) -> None:
    """The chain's clock goes on by `seconds`, with a block that says so."""
    with chain.lock:
        chain.advance(seconds)
        chain.mine()


def home(root: Path, i: int, url: str, certificates: list[OpenCertificate], payout: str | None = None) -> Path:
    """The home of person `i`: its wallet, its settings, and the certificates it verified."""
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
    """Certificates that follow each other; round k counts `samples[k]` of each person."""
    tip, made = genesis(PAID_RUN), []
    for seq, each in enumerate(samples, 1):
        opened, tip = certificate(tip, each, seq=seq)
        made.append(opened)
    return made
