"""Many commands at once on one chain: each takes effect once, and none takes another's place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.client import ChainSettings, connect
from contracts.devnet.genesis import COIN, GenesisSettings, dev_account, dev_key, genesis_of
from contracts.devnet.server import serving
from contracts.signers import signer_of
from protocol.chain.errors import ChainRefused
from protocol.chain.port import Chain

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]
CHAIN_ID, WAIT_S = 4195600, 120.0
REGISTRATIONS, SESSIONS, THREADS = 100, 50, 16
NAMES = tuple(f"member {i}" for i in range(REGISTRATIONS))
MANIFEST = b"m" * 32


@pytest.fixture
def url() -> Iterator[str]:
    """The contracts on py-evm, behind JSON-RPC over HTTP."""
    settings = GenesisSettings(
        chain_id=CHAIN_ID,
        owner=dev_account("owner"),
        settlers=(dev_account("settler 0"),),
        needed=1,
        start_s=int(time.time()),
        epoch_s=1000,
        delay_s=100,
        funded={dev_account(name): COIN for name in NAMES},
    )
    made = genesis_of(settings)
    with serving(made, None, host="127.0.0.1", port=0, block_s=0, now=time.time) as (url, _):
        yield url


def client(url: str, name: str) -> Chain:
    settings = ChainSettings(chain_id=CHAIN_ID, urls=(url,), confirmations=1)
    return connect(settings, signer_of(dev_key(name)), None)


def test_a_hundred_registrations_at_once_are_a_hundred_agents(url: str) -> None:
    def register(name: str) -> bool:
        chain = client(url, name)
        return chain.wait(chain.register(name), WAIT_S).done

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(register, NAMES))
    reader = client(url, NAMES[0])
    for name in NAMES:
        agent = reader.agent(dev_account(name))
        assert (agent.registered, agent.name) == (True, name)


def test_fifty_sessions_at_once_of_one_account_are_fifty_sessions(url: str) -> None:
    """The threads share one client, and so one nonce."""
    chain = client(url, NAMES[0])
    runs = [bytes([i]) * 32 for i in range(1, SESSIONS + 1)]

    def carry_through(run: bytes) -> str:
        for send in (
            lambda: chain.create_run(run, MANIFEST),
            lambda: chain.activate_run(run),
            lambda: (
                chain.complete_run(run, b"c" * 32)
                if run[0] % 2
                else chain.cancel_run(run, f"run {run[0]} is not needed")
            ),
        ):
            assert chain.wait(send(), WAIT_S).done
        return chain.run(run, chain.account).state

    with ThreadPoolExecutor(THREADS) as pool:
        states = list(pool.map(carry_through, runs))
    assert states == [("cancelled", "completed")[run[0] % 2] for run in runs]


def test_one_session_that_many_threads_create_at_once_is_created_once(url: str) -> None:
    chain, run = client(url, NAMES[0]), b"r" * 32

    def create(_: int) -> bool:
        try:
            return chain.wait(chain.create_run(run, MANIFEST), WAIT_S).done
        except ChainRefused:
            return False

    with ThreadPoolExecutor(THREADS) as pool:
        done = list(pool.map(create, range(THREADS)))
    assert any(done)
    assert chain.run(run, chain.account).state == "created"
    assert chain.run(run, dev_account(NAMES[1])).state == "none"
