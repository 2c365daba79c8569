"""From heartbeats to money: settlements, disputes and claims by the commands."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from contracts.devnet.genesis import COIN
from daemon.chain.datasets import keep_dataset
from protocol.chain.keccak import address_of
from protocol.chain.port import Proposal
from protocol.settlement.dataset import decode_dataset, make_dataset
from tests.daemon.chain import homes
from tests.daemon.chain.stage import ROUNDS, Stage
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

    # Anyone may fund the pool, with coins that their wallet holds.
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
