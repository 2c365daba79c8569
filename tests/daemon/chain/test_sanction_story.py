"""Offences, errors and repeated heartbeats by the commands."""

from __future__ import annotations

import json

import pytest

from contracts.devnet.genesis import COIN
from daemon.wallet import password
from tests.daemon.chain import paid_homes
from tests.daemon.chain.command_runner import ROUNDS, CommandRunner
from tests.protocol.rounds import people
from tests.protocol.settlement.paid import wallet


def test_an_offence_is_filed_with_evidence_settled_and_listed(commands: CommandRunner) -> None:
    for i in range(2):
        commands.home(i)
        commands.heartbeat(i)
    evidence = commands.root / "wrong-sum"
    evidence.write_bytes(b"what was signed")
    guilty, peer = wallet(1).address, people(4)[1].peer
    # An offence needs evidence.
    assert commands.run(0, "sanction", guilty, "--reason", "it summed wrongly").code == 2
    assert (
        commands.run(0, "sanction", guilty, "--reason", "x" * 257, "--evidence", str(evidence)).code
        == 2
    )
    assert (
        commands.run(
            0, "sanction", peer[:12] + "?", "--reason", "x", "--evidence", str(evidence)
        ).code
        == 2
    )
    filed = commands.run(
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
    assert (commands.homes[0] / "evidence" / one["evidence"]).read_bytes() == b"what was signed"
    mistaken = commands.root / "mistaken"
    mistaken.write_bytes(b"nothing")
    other = json.loads(
        commands.run(
            0, "sanction", wallet(0).address, "--reason", "?", "--evidence", str(mistaken), "--json"
        ).out
    )
    assert commands.run(0, "sanction", "--withdraw", other[0]["evidence"][:8]).code == 0
    assert "it summed wrongly" in commands.run(0, "sanction").out

    faucet = commands.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    commands.world.pass_time(paid_homes.EPOCH_S)
    settled = commands.run(0, "settle", "--json", "--pool", "60").record
    # Person 0 has 20 samples, and person 1 has 40 less the deducted 10.
    assert settled["accounts"] == {wallet(0).address: str(24 * COIN), guilty: str(36 * COIN)}
    assert f"{guilty}: subtract" in str(settled["sanctions"])
    commands.share_dataset(0, 1)
    assert commands.run(1, "rewards", "verify").code == 0
    shown = commands.run(1, "rewards", "--json").record
    (sanction,) = list(shown["sanctions"])  # type: ignore[call-overload]
    assert (sanction["account"], sanction["step"], sanction["epoch"]) == (guilty, "subtract", 0)
    assert sanction["evidence"] == one["evidence"]
    assert (
        "yours: subtract in epoch 0, samples deducted: it summed wrongly"
        in commands.run(1, "rewards").out
    )

    # The next settlement does not repeat the sanction, and a second offence gets the second step.
    commands.world.pass_time(paid_homes.DELAY_S)
    commands.run(0, "settle")
    paid_homes.add_certificates(commands.homes[0], ROUNDS[2:])
    commands.heartbeat(0, rounds=3)
    evidence.write_bytes(b"and again")
    commands.run(0, "sanction", guilty, "--reason", "again", "--evidence", str(evidence))
    commands.world.pass_time(paid_homes.EPOCH_S)
    second = commands.run(0, "settle", "--json").record
    assert [line.partition(": ")[2].split()[0] for line in list(second["sanctions"])] == [
        "subtract",
        "quarantine",
    ]  # type: ignore[call-overload]


def test_each_failure_has_its_own_code(
    commands: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.home(0)
    config = commands.homes[0] / "config.toml"
    settings = config.read_text()
    config.write_text(settings.replace(commands.world.url, "http://127.0.0.1:7"))
    down = commands.run(0, "rewards")
    assert (down.code, "CHAIN_DOWN" in down.err) == (6, True)
    config.write_text("")
    assert commands.run(0, "rewards").code == 2
    config.write_text(settings)
    monkeypatch.delenv(password.VARIABLE)
    locked = commands.run(0, "rewards", "claim")
    assert (locked.code, "WALLET_LOCKED" in locked.err) == (5, True)
    assert commands.run(0, "rewards", "--account", "0x12").code == 2
    assert commands.run(0, "rewards", "--run", "ffff").code == 2
    commands.homes[9] = commands.root / "empty"
    assert commands.run(9, "rewards").code == 2


def test_a_figure_is_sent_once_across_processes(commands: CommandRunner) -> None:
    heartbeater, _, figures = commands.heartbeater(3)
    # This heartbeat registers the agent; there is no certificate yet.
    heartbeater.send_heartbeat()
    figures.add(ROUNDS[:1])
    assert heartbeater.send_heartbeat().state == "live"
    block = commands.world.client(None).head().number
    heartbeater.send_heartbeat()
    successor, _, counted = commands.heartbeater(3)
    counted.add(ROUNDS[:1])
    successor.send_heartbeat()
    # No transaction was sent.
    assert commands.world.client(None).head().number == block
    counted.add(ROUNDS)
    successor.send_heartbeat()
    assert commands.world.client(None).head().number > block


def test_a_reset_counter_never_lowers_the_sent_figure(commands: CommandRunner) -> None:
    heartbeater, _, figures = commands.heartbeater(0)
    figures.add(ROUNDS)
    assert heartbeater.send_heartbeat().samples == 40
    lost, _, fresh = commands.heartbeater(0)
    fresh.add(ROUNDS[:1])
    assert lost.send_heartbeat().samples == 40
