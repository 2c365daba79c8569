"""The runs of a home where files are damaged: damage is reported once, and repaired if possible."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from contracts.devnet.genesis import COIN
from daemon.chain.home_runs import MANIFEST_FILE, keep_manifest, run_folder
from protocol.run.manifest import seal
from tests.daemon.chain.command_runner import CommandRunner
from tests.protocol.settlement.paid import PAID, PAID_RUN


def test_commands_report_certificates_that_they_cannot_read(
    commands: CommandRunner,
) -> None:
    for i in range(2):
        commands.home(i)
        commands.heartbeat(i)
    faucet = commands.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    commands.world.pass_time(3600)
    assert "damaged" not in commands.run(0, "settle").err
    commands.share_dataset(0, 1)
    file = run_folder(commands.homes[1], PAID_RUN) / "certificates"
    file.write_bytes(file.read_bytes()[:-1])
    for words in (("rewards", "verify"), ("rewards",), ("settle", "--dry-run")):
        said = commands.run(1, *words)
        told = [
            line
            for line in said.err.splitlines()
            if "The certificates are damaged behind number 1: an append was broken off." in line
        ]
        assert len(told) == 1
        assert told[0].endswith(f": {file}")
    assert commands.run(1, "rewards", "verify").code != 0


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"garbage",
        msgspec.msgpack.encode(seal(PAID))[:-3],
        msgspec.msgpack.encode(seal(PAID)) + b"x",
    ],
)
def test_a_damaged_manifest_is_rewritten_and_a_valid_one_is_kept(
    damaged: bytes, tmp_path: Path
) -> None:
    path = run_folder(tmp_path, PAID_RUN) / MANIFEST_FILE
    keep_manifest(tmp_path, seal(PAID))
    written = path.stat().st_ino
    keep_manifest(tmp_path, seal(PAID))
    assert path.stat().st_ino == written
    path.write_bytes(damaged)
    keep_manifest(tmp_path, seal(PAID))
    assert path.read_bytes() == msgspec.msgpack.encode(seal(PAID))
