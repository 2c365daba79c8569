"""Offences, errors and repeated heartbeats by the commands."""

from __future__ import annotations

import json

import pytest

from contracts.devnet.genesis import COIN
from daemon.wallet import password
from tests.daemon.chain import homes
from tests.daemon.chain.stage import ROUNDS, Stage
from tests.protocol.rounds import people
from tests.protocol.settlement.paid import wallet


def test_an_offence_is_filed_with_evidence_settled_and_listed(stage: Stage) -> None:
    for i in range(2):
        stage.home(i)
        stage.heartbeat(i)
    evidence = stage.root / "wrong-sum"
    evidence.write_bytes(b"what was signed")
    guilty, peer = wallet(1).address, people(4)[1].peer
    # Without evidence nobody is accused.
    assert stage.say(0, "sanction", guilty, "--reason", "it summed wrongly").code == 2
    assert (
        stage.say(0, "sanction", guilty, "--reason", "x" * 257, "--evidence", str(evidence)).code
        == 2
    )
    assert (
        stage.say(0, "sanction", peer[:12] + "?", "--reason", "x", "--evidence", str(evidence)).code
        == 2
    )
    filed = stage.say(
        0,
        "sanction",
        peer,
        "--reason",
        "it summed wrongly",
        "--evidence",
        str(evidence),
        "--samples",
        "10",
        "--json",
    )
    (one,) = json.loads(filed.out)
    assert (one["account"], one["samples"]) == (guilty, 10)
    assert (stage.homes[0] / "evidence" / one["evidence"]).read_bytes() == b"what was signed"
    mistaken = stage.root / "mistaken"
    mistaken.write_bytes(b"nothing")
    other = json.loads(
        stage.say(
            0, "sanction", wallet(0).address, "--reason", "?", "--evidence", str(mistaken), "--json"
        ).out
    )
    assert stage.say(0, "sanction", "--withdraw", other[0]["evidence"][:8]).code == 0
    assert "it summed wrongly" in stage.say(0, "sanction").out

    faucet = stage.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    stage.world.pass_time(homes.EPOCH_S)
    settled = stage.say(0, "settle", "--json", "--pool", "60").record
    # 20 samples against 40 less 10.
    assert settled["accounts"] == {wallet(0).address: str(24 * COIN), guilty: str(36 * COIN)}
    assert f"{guilty}: subtract" in str(settled["sanctions"])
    stage.share_dataset(0, 1)
    assert stage.say(1, "rewards", "verify").code == 0
    shown = stage.say(1, "rewards", "--json").record
    (sanction,) = list(shown["sanctions"])  # type: ignore[call-overload]
    assert (sanction["account"], sanction["step"], sanction["epoch"]) == (guilty, "subtract", 0)
    assert sanction["evidence"] == one["evidence"]
    assert (
        "yours: subtract in epoch 0, samples deducted: it summed wrongly"
        in stage.say(1, "rewards").out
    )

    # It is in the settlement: the next one does not tell it again, and a second offence is the
    # second step.
    stage.world.pass_time(homes.DELAY_S)
    stage.say(0, "settle")
    homes.add_certificates(stage.homes[0], ROUNDS[2:])
    stage.heartbeat(0, rounds=3)
    evidence.write_bytes(b"and again")
    stage.say(0, "sanction", guilty, "--reason", "again", "--evidence", str(evidence))
    stage.world.pass_time(homes.EPOCH_S)
    second = stage.say(0, "settle", "--json").record
    assert [line.partition(": ")[2].split()[0] for line in list(second["sanctions"])] == [
        "subtract",
        "quarantine",
    ]  # type: ignore[call-overload]


def test_what_goes_wrong_has_a_code_of_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.home(0)
    config = stage.homes[0] / "config.toml"
    settings = config.read_text()
    config.write_text(settings.replace(stage.world.url, "http://127.0.0.1:7"))
    down = stage.say(0, "rewards")
    assert (down.code, "CHAIN_DOWN" in down.err) == (6, True)
    config.write_text("")
    assert stage.say(0, "rewards").code == 2
    config.write_text(settings)
    monkeypatch.delenv(password.VARIABLE)
    locked = stage.say(0, "rewards", "claim")
    assert (locked.code, "WALLET_LOCKED" in locked.err) == (5, True)
    assert stage.say(0, "rewards", "--account", "0x12").code == 2
    assert stage.say(0, "rewards", "--run", "ffff").code == 2
    stage.homes[9] = stage.root / "empty"
    assert stage.say(9, "rewards").code == 2


def test_a_figure_is_told_once_also_by_the_next_process(stage: Stage) -> None:
    heartbeater, _, figures = stage.heartbeater(3)
    heartbeater.send_heartbeat()  # registers; there is no certificate yet
    figures.add(ROUNDS[:1])
    assert heartbeater.send_heartbeat().state == "live"
    block = stage.world.client(None).head().number
    heartbeater.send_heartbeat()
    successor, _, counted = stage.heartbeater(3)
    counted.add(ROUNDS[:1])
    successor.send_heartbeat()
    assert stage.world.client(None).head().number == block  # nothing was sent
    counted.add(ROUNDS)
    successor.send_heartbeat()
    assert stage.world.client(None).head().number > block


def test_a_counter_that_begins_again_is_never_told_as_less(stage: Stage) -> None:
    heartbeater, _, figures = stage.heartbeater(0)
    figures.add(ROUNDS)
    assert heartbeater.send_heartbeat().samples == 40
    lost, _, fresh = stage.heartbeater(0)
    fresh.add(ROUNDS[:1])
    assert lost.send_heartbeat().samples == 40
