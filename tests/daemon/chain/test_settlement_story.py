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
from tests.daemon.chain import paid_homes
from tests.daemon.chain.command_runner import ROUNDS, CommandRunner
from tests.protocol.settlement.paid import PAID, PAID_RUN, wallet

COLD = address_of(b"\x0c" * 20)


def test_rewards_from_heartbeat_to_payout(commands: CommandRunner) -> None:
    for i in range(3):
        commands.home(i, payout=COLD if i == 1 else None)
        commands.heartbeat(i, payout=COLD if i == 1 else None)
    reader = commands.world.client(None)
    agent = reader.agent(wallet(1).address)
    assert (agent.registered, agent.active, agent.payout, agent.samples) == (True, True, COLD, 40)
    assert agent.certificate == ROUNDS[1].hash

    # Anyone may fund the pool, with coins that their wallet holds.
    faucet = commands.world.faucet()
    assert faucet.wait(faucet.fund(999 * COIN), 10).done
    assert commands.run(1, "settle", "--fund", "1", "--dry-run").code == 0
    assert reader.pool().balance == 999 * COIN
    funded = commands.run(1, "settle", "--fund", "1", "--json")
    assert (funded.code, funded.record) == (0, {"funded": str(COIN), "pool": str(1000 * COIN)})
    poor = commands.run(1, "settle", "--fund", "1000000")
    assert (poor.code, "insufficient funds" in poor.err.lower()) == (1, True)

    # An epoch cannot be settled before its end, and there is nothing to verify or claim.
    early = commands.run(0, "settle")
    assert (early.code, "EPOCH" in early.err, "first epoch" in early.err) == (1, True, True)
    assert commands.run(1, "rewards", "verify").code == 1
    assert commands.run(1, "rewards", "claim").code == 1

    commands.world.pass_time(paid_homes.EPOCH_S)
    shown = commands.run(0, "settle", "--dry-run", "--json")
    assert shown.record["done"] == "shown"
    assert reader.pool().pending is None
    proposed = commands.run(0, "settle", "--json")
    assert (proposed.code, proposed.record["done"], proposed.record["total"]) == (
        0,
        "proposed",
        str(1000 * COIN),
    )
    assert proposed.record["root"] == shown.record["root"]

    # Every node computes the same root from the data set; without it, the command fails.
    missing = commands.run(1, "rewards", "verify")
    assert (missing.code, "DATASET" in missing.err) == (1, True)
    commands.share_dataset(0, 1)
    verified = commands.run(1, "rewards", "verify")
    assert (verified.code, "agrees" in verified.out) == (0, True)
    waiting = commands.run(1, "rewards", "--json").record
    assert (waiting["claimable"], waiting["pending"]) == ("0", str(500 * COIN))

    again = commands.run(0, "settle")
    assert (again.code, "PENDING" in again.err) == (1, True)
    commands.world.pass_time(paid_homes.DELAY_S)
    active = commands.run(0, "settle", "--json")
    assert (active.code, active.record["done"]) == (0, "activated")

    # The claim pays the payout account once, and a stranger cannot send it.
    dry = commands.run(1, "rewards", "claim", "--dry-run", "--json").record
    assert (dry["amount"], dry["sent"]) == (str(500 * COIN), False)
    assert reader.balance(COLD) == 0
    paid = commands.run(1, "rewards", "claim", "--json").record
    assert (paid["amount"], paid["payout"], paid["sent"]) == (str(500 * COIN), COLD, True)
    assert reader.balance(COLD) == 500 * COIN
    second = commands.run(1, "rewards", "claim", "--json").record
    assert (second["amount"], second["sent"], second["id"]) == ("0", False, paid["id"])
    assert "all 500 earned" in str(second["reason"])
    commands.share_dataset(0, 2)
    stranger = commands.run(2, "rewards", "claim", "--account", wallet(0).address)
    assert (
        stranger.code,
        "can claim its rewards" in stranger.err,
        "[CLAIM]" in stranger.err,
    ) == (1, True, True)
    assert commands.run(0, "rewards", "claim").code == 0
    before = reader.balance(wallet(0).address)
    assert reader.claimed(wallet(0).address) == 250 * COIN
    assert before > 250 * COIN
    assert commands.run(2, "rewards", "claim").code == 0
    assert sum(reader.claimed(wallet(i).address) for i in range(3)) == 1000 * COIN
    assert reader.pool().balance == 0
    assert "1,000" not in commands.run(1, "rewards").out
    assert "claimed    500" in commands.run(1, "rewards").out


def test_a_second_epoch_pays_only_new_work(commands: CommandRunner) -> None:
    for i in range(2):
        commands.home(i)
        commands.heartbeat(i)
    faucet = commands.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    commands.world.pass_time(paid_homes.EPOCH_S)
    first = commands.run(0, "settle", "--json", "--pool", "60").record
    # Person 2 worked without a heartbeat. Its work waits, and delays no other account.
    assert first["accounts"] == {
        wallet(0).address: str(20 * COIN),
        wallet(1).address: str(40 * COIN),
    }
    assert "no heartbeat" in str(first["withheld"])
    commands.world.pass_time(paid_homes.DELAY_S)
    commands.run(0, "settle")
    commands.run(0, "rewards", "claim")
    paid_homes.add_certificates(commands.homes[0], ROUNDS[2:])
    commands.heartbeat(0, rounds=3)
    commands.heartbeat(2)
    commands.world.pass_time(paid_homes.EPOCH_S)
    # This heartbeat is too late for the epoch, but the last epoch paid that work already.
    commands.heartbeat(1)
    commands.world.pass_time(paid_homes.EPOCH_S - paid_homes.DELAY_S - 100)
    second = commands.run(0, "settle", "--json").record
    # The 40 coins that are left pay 20 waiting samples of person 2 and 20 new ones of person 0.
    # Work that epoch one paid is not paid again.
    assert second["pool"] == str(40 * COIN)
    assert second["accounts"] == {
        wallet(0).address: str(40 * COIN),
        wallet(1).address: str(40 * COIN),
        wallet(2).address: str(20 * COIN),
    }


def test_a_wrong_root_is_detected_and_disputed(commands: CommandRunner) -> None:
    for i in range(3):
        commands.home(i)
        commands.heartbeat(i)
    faucet = commands.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    commands.world.pass_time(paid_homes.EPOCH_S)
    honest = commands.run(0, "settle", "--dry-run", "--json").record
    commands.share_dataset(0, 1)
    settler = commands.world.client(wallet(0).private_key())
    lie = Proposal(
        epoch=0, root=b"\x01" * 32, total=100 * COIN, data=bytes.fromhex(str(honest["dataset"]))
    )
    settler.wait(settler.propose(lie), 10)
    seen = commands.run(1, "rewards", "verify", "--json")
    assert seen.code == 1
    assert [check["agrees"] for check in json.loads(seen.out)] == [False]
    # Person 1 is no settler.
    assert commands.run(1, "settle", "--dispute", "not ours").code == 1
    other = commands.run(0, "settle", "--dispute", "it was another one", "--root", "00")
    assert (other.code, "[ROOT]" in other.err, settler.pool().pending) == (1, True, lie)
    assert (
        commands.run(
            0, "settle", "--dispute", "the certificates give another root", "--root", "0x0101"
        ).code
        == 0
    )
    assert settler.pool().pending is None
    assert commands.run(0, "settle", "--json").record["root"] == honest["root"]


@pytest.mark.parametrize("lie", ["listed as silent", "is paid"])
def test_silent_accounts_are_checked_against_the_chains_events(
    commands: CommandRunner, lie: str
) -> None:
    """A settler's data set fits its root, but lists the wrong silent accounts."""
    for i in range(3):
        commands.home(i)
    for i in range(2):
        commands.heartbeat(i)
    faucet = commands.world.faucet()
    faucet.wait(faucet.fund(100 * COIN), 10)
    commands.world.pass_time(paid_homes.EPOCH_S)
    # A heartbeat after the epoch's end does not change the result of later computations.
    commands.heartbeat(2)
    honest = commands.run(0, "settle", "--dry-run", "--json").record
    assert "no heartbeat" in str(honest["withheld"])
    (file,) = (commands.homes[0] / "settlements").iterdir()
    dataset = decode_dataset(file.read_bytes(), bytes.fromhex(file.name))
    (terms,) = dataset.epochs
    assert terms.silent == (wallet(2).raw_address,)
    silent = (*terms.silent, wallet(1).raw_address) if lie == "listed as silent" else ()
    false, _ = make_dataset(PAID_RUN, PAID, [replace(terms, silent=silent)], ROUNDS[:2])
    name = keep_dataset(commands.homes[1], false)
    again = commands.run(
        0, "settle", "--dry-run", "--like", str(commands.homes[1] / "settlements" / name.hex())
    )
    assert (again.code, lie in again.err) == (1, True)
    settler = commands.world.client(wallet(0).private_key())
    assert settler.wait(
        settler.propose(Proposal(epoch=0, root=false.root, total=false.total, data=name)), 10
    ).done
    seen = commands.run(1, "rewards", "verify")
    assert (seen.code, lie in seen.out, "DIFFERS" in seen.out) == (1, True, True)
    assert commands.run(0, "settle", "--dispute", "it lies about who was silent").code == 0
    assert commands.run(0, "settle", "--json").record["root"] == honest["root"]
    commands.share_dataset(0, 1)
    assert commands.run(1, "rewards", "verify").code == 0
