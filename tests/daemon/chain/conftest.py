"""Fixtures for commands beside a chain.

The chain is the fake one, and in slow tests also the contracts in py-evm and anvil.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.chain.client_setup import open_chain
from daemon.config.settings import ChainConfig
from daemon.wallet import password
from daemon.wallet.keystore import UnlockedWallet
from protocol.chain.port import Chain
from protocol.run.manifest import Manifest
from tests.contracts.testnets import ANVIL, NO_ANVIL
from tests.daemon.chain import paid_homes
from tests.daemon.chain.command_runner import CommandRunner
from tests.protocol.settlement.paid import wallet


@pytest.fixture(
    params=[
        "fake",
        pytest.param("evm", marks=pytest.mark.slow),
        pytest.param(
            "anvil",
            marks=[
                pytest.mark.slow,
                pytest.mark.real,
                pytest.mark.skipif(not ANVIL.exists(), reason=NO_ANVIL),
            ],
        ),
    ]
)
def commands(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CommandRunner]:
    secret = tmp_path / "password"
    secret.write_text(paid_homes.PASSWORD)
    secret.chmod(0o600)
    monkeypatch.setenv(password.VARIABLE, str(secret))
    settlers = (wallet(0).address,)
    if request.param != "fake":
        monkeypatch.setattr("contracts.transaction_tracker.POLL_S", 0.01)
        with (
            paid_homes.devnet(settlers)
            if request.param == "evm"
            else paid_homes.on_anvil(settlers) as world
        ):
            yield CommandRunner(tmp_path, world, capfd)
        return
    fake = paid_homes.SimulatedChain(settlers)

    def opened(
        settings: ChainConfig, manifest: Manifest, home: Path, signer: UnlockedWallet | None
    ) -> Chain:
        # This test needs the real client.
        if settings.rpc != (fake.url,):
            return open_chain(settings, manifest, home, signer)
        return fake.client(None if signer is None else signer.private_key())

    monkeypatch.setattr("daemon.cli.chain.access.open_chain", opened)
    yield CommandRunner(tmp_path, fake, capfd)
