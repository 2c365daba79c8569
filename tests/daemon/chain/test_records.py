"""What a home holds of its runs, where some of it is damaged: told once, and mended where it can be."""

from __future__ import annotations

from contracts.devnet.genesis import COIN
from daemon.chain.records import run_folder
from tests.daemon.chain.stage import Stage
from tests.protocol.settlement.paid import PAID_RUN


def test_commands_that_add_up_certificates_tell_of_those_they_cannot_read(stage: Stage) -> None:
    for i in range(2):
        stage.home(i)
        stage.beat(i)
    faucet = stage.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    stage.world.pass_time(3600)
    assert "damaged" not in stage.say(0, "settle").err
    stage.share_dataset(0, 1)
    file = run_folder(stage.homes[1], PAID_RUN) / "certificates"
    file.write_bytes(file.read_bytes()[:-1])
    for words in (("rewards", "verify"), ("rewards",), ("settle", "--dry-run")):
        said = stage.say(1, *words)
        assert said.err.count(f"The certificates are damaged behind number 1. Other members are asked for what follows, and it is written anew: {file}") == 1
    assert stage.say(1, "rewards", "verify").code != 0
