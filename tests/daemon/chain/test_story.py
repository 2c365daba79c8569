"""The whole story with the commands a person types: beat, settle, dispute, activate, verify, claim,
and every refusal.

On every chain that `conftest.py` names.
"""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from contracts.devnet.genesis import COIN
from daemon.chain.datasets import keep_dataset
from daemon.wallet import password
from protocol.chain.keccak import address_of
from protocol.chain.port import Proposal
from protocol.settlement.dataset import decode_dataset, make_dataset
from tests.daemon.chain import homes
from tests.daemon.chain.stage import ROUNDS, Stage
from tests.protocol.rounds import people
from tests.protocol.settlement.paid import PAID, PAID_RUN, wallet

COLD = address_of(b"\x0c" * 20)


def test_from_heartbeat_to_money(stage: Stage) -> None:
    for i in range(3):
        stage.home(i, payout=COLD if i == 1 else None)
        stage.heartbeat(i, payout=COLD if i == 1 else None)
    reader = stage.world.client(None)
    agent = reader.agent(wallet(1).address)
    assert (agent.registered, agent.active, agent.payout, agent.samples) == (True, True, COLD, 40)
    assert agent.certificate == ROUNDS[1].hash

    # The pool is filled by whoever wants to; what a wallet does not hold it cannot give.
    faucet = stage.world.faucet()
    assert faucet.wait(faucet.fund(999 * COIN), 10).done
    assert stage.say(1, "settle", "--fund", "1", "--dry-run").code == 0
    assert reader.pool().balance == 999 * COIN
    funded = stage.say(1, "settle", "--fund", "1", "--json")
    assert (funded.code, funded.record) == (0, {"funded": str(COIN), "pool": str(1000 * COIN)})
    poor = stage.say(1, "settle", "--fund", "1000000")
    assert (poor.code, "insufficient funds" in poor.err.lower()) == (1, True)

    # Before an epoch is over nobody can settle it, and there is nothing to verify or claim.
    early = stage.say(0, "settle")
    assert (early.code, "EPOCH" in early.err, "first epoch" in early.err) == (1, True, True)
    assert stage.say(1, "rewards", "verify").code == 1
    assert stage.say(1, "rewards", "claim").code == 1

    stage.world.pass_time(homes.EPOCH_S)
    shown = stage.say(0, "settle", "--dry-run", "--json")
    assert shown.record["done"] == "shown"
    assert reader.pool().pending is None
    proposed = stage.say(0, "settle", "--json")
    assert (proposed.code, proposed.record["done"], proposed.record["total"]) == (
        0,
        "proposed",
        str(1000 * COIN),
    )
    assert proposed.record["root"] == shown.record["root"]

    # Everybody computes the same root; without the data set nobody pretends to.
    missing = stage.say(1, "rewards", "verify")
    assert (missing.code, "DATASET" in missing.err) == (1, True)
    stage.share_dataset(0, 1)
    verified = stage.say(1, "rewards", "verify")
    assert (verified.code, "agrees" in verified.out) == (0, True)
    waiting = stage.say(1, "rewards", "--json").record
    assert (waiting["claimable"], waiting["pending"]) == ("0", str(500 * COIN))

    again = stage.say(0, "settle")
    assert (again.code, "PENDING" in again.err) == (1, True)
    stage.world.pass_time(homes.DELAY_S)
    active = stage.say(0, "settle", "--json")
    assert (active.code, active.record["done"]) == (0, "activated")

    # The claim goes to the payout; a stranger does not send it; twice pays once.
    dry = stage.say(1, "rewards", "claim", "--dry-run", "--json").record
    assert (dry["amount"], dry["sent"]) == (str(500 * COIN), False)
    assert reader.balance(COLD) == 0
    paid = stage.say(1, "rewards", "claim", "--json").record
    assert (paid["amount"], paid["payout"], paid["sent"]) == (str(500 * COIN), COLD, True)
    assert reader.balance(COLD) == 500 * COIN
    second = stage.say(1, "rewards", "claim", "--json").record
    assert (second["amount"], second["sent"], second["id"]) == ("0", False, paid["id"])
    assert "all 500 earned" in str(second["reason"])
    stage.share_dataset(0, 2)
    stranger = stage.say(2, "rewards", "claim", "--account", wallet(0).address)
    assert (
        stranger.code,
        "can claim its rewards" in stranger.err,
        "[CLAIM]" in stranger.err,
    ) == (1, True, True)
    assert stage.say(0, "rewards", "claim").code == 0
    before = reader.balance(wallet(0).address)
    assert reader.claimed(wallet(0).address) == 250 * COIN
    assert before > 250 * COIN
    assert stage.say(2, "rewards", "claim").code == 0
    assert sum(reader.claimed(wallet(i).address) for i in range(3)) == 1000 * COIN
    assert reader.pool().balance == 0
    assert "1,000" not in stage.say(1, "rewards").out
    assert "claimed    500" in stage.say(1, "rewards").out


def test_a_second_epoch_pays_what_is_new_and_nothing_again(stage: Stage) -> None:
    for i in range(2):
        stage.home(i)
        stage.heartbeat(i)
    faucet = stage.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    stage.world.pass_time(homes.EPOCH_S)
    first = stage.say(0, "settle", "--json", "--pool", "60").record
    # Person 2 worked and never beat: its work waits, and blocks nobody.
    assert first["accounts"] == {
        wallet(0).address: str(20 * COIN),
        wallet(1).address: str(40 * COIN),
    }
    assert "no heartbeat" in str(first["withheld"])
    stage.world.pass_time(homes.DELAY_S)
    stage.say(0, "settle")
    stage.say(0, "rewards", "claim")
    homes.add_certificates(stage.homes[0], ROUNDS[2:])
    stage.heartbeat(0, rounds=3)
    stage.heartbeat(2)
    stage.world.pass_time(homes.EPOCH_S)
    # Too late for the epoch: its work was paid in the last one, so it loses nothing.
    stage.heartbeat(1)
    stage.world.pass_time(homes.EPOCH_S - homes.DELAY_S - 100)
    second = stage.say(0, "settle", "--json").record
    # 40 coins are left: 20 samples of person 2 that waited, 20 new ones of person 0. Nothing of
    # epoch one is divided again.
    assert second["pool"] == str(40 * COIN)
    assert second["accounts"] == {
        wallet(0).address: str(40 * COIN),
        wallet(1).address: str(40 * COIN),
        wallet(2).address: str(20 * COIN),
    }


def test_a_wrong_root_is_seen_and_disputed(stage: Stage) -> None:
    for i in range(3):
        stage.home(i)
        stage.heartbeat(i)
    faucet = stage.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    stage.world.pass_time(homes.EPOCH_S)
    honest = stage.say(0, "settle", "--dry-run", "--json").record
    stage.share_dataset(0, 1)
    settler = stage.world.client(wallet(0).private_key())
    lie = Proposal(
        epoch=0, root=b"\x01" * 32, total=100 * COIN, data=bytes.fromhex(str(honest["dataset"]))
    )
    settler.wait(settler.propose(lie), 10)
    seen = stage.say(1, "rewards", "verify", "--json")
    assert seen.code == 1
    assert [check["agrees"] for check in json.loads(seen.out)] == [False]
    assert stage.say(1, "settle", "--dispute", "not ours").code == 1  # not a settler
    other = stage.say(0, "settle", "--dispute", "it was another one", "--root", "00")
    assert (other.code, "[ROOT]" in other.err, settler.pool().pending) == (1, True, lie)
    assert (
        stage.say(
            0, "settle", "--dispute", "the certificates give another root", "--root", "0x0101"
        ).code
        == 0
    )
    assert settler.pool().pending is None
    assert stage.say(0, "settle", "--json").record["root"] == honest["root"]


@pytest.mark.parametrize("lie", ["listed as silent", "is paid"])
def test_who_was_silent_is_checked_against_the_chains_own_events(stage: Stage, lie: str) -> None:
    """A settler's data set that fits its root, and says wrongly who sent no heartbeat."""
    for i in range(3):
        stage.home(i)
    for i in range(2):
        stage.heartbeat(i)
    faucet = stage.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    stage.world.pass_time(homes.EPOCH_S)
    # After the epoch: nobody who computes later comes to another answer.
    stage.heartbeat(2)
    honest = stage.say(0, "settle", "--dry-run", "--json").record
    assert "no heartbeat" in str(honest["withheld"])
    (file,) = (stage.homes[0] / "settlements").iterdir()
    dataset = decode_dataset(file.read_bytes(), bytes.fromhex(file.name))
    (terms,) = dataset.epochs
    assert terms.silent == (wallet(2).raw_address,)
    silent = (*terms.silent, wallet(1).raw_address) if lie == "listed as silent" else ()
    false, _ = make_dataset(PAID_RUN, PAID, [replace(terms, silent=silent)], ROUNDS[:2])
    name = keep_dataset(stage.homes[1], false)
    again = stage.say(
        0, "settle", "--dry-run", "--like", str(stage.homes[1] / "settlements" / name.hex())
    )
    assert (again.code, lie in again.err) == (1, True)
    settler = stage.world.client(wallet(0).private_key())
    assert settler.wait(
        settler.propose(Proposal(epoch=0, root=false.root, total=false.total, data=name)), 10
    ).done
    seen = stage.say(1, "rewards", "verify")
    assert (seen.code, lie in seen.out, "DIFFERS" in seen.out) == (1, True, True)
    assert stage.say(0, "settle", "--dispute", "it lies about who was silent").code == 0
    assert stage.say(0, "settle", "--json").record["root"] == honest["root"]
    stage.share_dataset(0, 1)
    assert stage.say(1, "rewards", "verify").code == 0


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


# ------------------------------------------------------------------------------------------------ heartbeats


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
