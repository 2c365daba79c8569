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
from tests.daemon.chain import homes
from tests.daemon.chain.stage import Stage
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
def stage(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    secret = tmp_path / "password"
    secret.write_text(homes.PASSWORD)
    secret.chmod(0o600)
    monkeypatch.setenv(password.VARIABLE, str(secret))
    settlers = (wallet(0).address,)
    if request.param != "fake":
        monkeypatch.setattr("contracts.transaction_tracker.POLL_S", 0.01)
        with (
            homes.devnet(settlers) if request.param == "evm" else homes.on_anvil(settlers) as world
        ):
            yield Stage(tmp_path, world, capfd)
        return
    fake = homes.FakeWorld(settlers)

    def opened(
        settings: ChainConfig, manifest: Manifest, home: Path, signer: UnlockedWallet | None
    ) -> Chain:
        if settings.rpc != (fake.url,):  # a test that is about the real one
            return open_chain(settings, manifest, home, signer)
        return fake.client(None if signer is None else signer.private_key())

    monkeypatch.setattr("daemon.cli.chain.access.open_chain", opened)
    yield Stage(tmp_path, fake, capfd)
