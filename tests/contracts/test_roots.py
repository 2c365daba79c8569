"""Roots and proofs: OpenZeppelin's vectors, wrong trees, and who is paid."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from contracts.abi import call_data
from contracts.artifacts import (
    HEARTBEAT_PRECOMPILE,
    REWARD_POOL,
)
from contracts.calldata import number_word
from contracts.chain_client import ChainClient
from contracts.devnet.genesis import dev_account
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import account_bytes, address_of, checked_address, keccak256
from protocol.settlement.merkle_tree import SettlementTree
from tests.contracts.roots import activate_root, call_as
from tests.contracts.testnet_controls import ControlledTestnet, call_raw
from tests.contracts.testnets import EvmTestnet
from tests.ports.chain_kit import ANNA, BERT, COLD, done, fund, settle

VECTORS = Path(__file__).parents[1] / "protocol" / "vectors" / "merkle_tree.json"


class Entry(msgspec.Struct):
    account: str
    total: int
    proof: list[str]


class Tree(msgspec.Struct):
    root: str
    entries: list[Entry]


class Vectors(msgspec.Struct):
    trees: list[Tree]


def test_proofs_from_openzeppelins_package_are_accepted() -> None:
    """The contract accepts every leaf of its trees. The pool is funded for their large totals."""

    accepted = 0
    for tree in msgspec.json.decode(VECTORS.read_bytes(), type=Vectors, strict=False).trees:
        fresh = EvmTestnet()
        owner = fresh.chain("owner")
        total = sum(entry.total for entry in tree.entries)
        small = [entry for entry in tree.entries if entry.total < 10**18]
        covered = min(total, 10**20)
        done(owner, owner.fund(covered))
        activate_root(fresh, bytes.fromhex(tree.root[2:]), covered)
        for entry in small:
            who = checked_address(entry.account)
            proof = [bytes.fromhex(step[2:]) for step in entry.proof]
            assert owner.claimable(who, entry.total, proof) == entry.total
            assert owner.claimable(who, entry.total + 1, proof) == 0
            accepted += 1
        entry = small[0]
        proof = [bytes.fromhex(step[2:]) for step in entry.proof]
        assert int(call_as(fresh, entry.account, entry.total, proof), 16) == entry.total
    assert accepted >= 40


def test_an_inner_node_is_not_accepted_as_a_leaf(testnet: ControlledTestnet) -> None:
    """The two children of a root cannot be claimed as an account and its total.

    With a single hash, their 64 bytes would hash to the root and need no proof. The left child
    begins with twelve zeros, as an account's word does. One honest tree in 2**96 has such a child,
    but settlers who choose the leaves can build one at once.
    """
    fund(testnet, 1000)
    anna = testnet.chain(ANNA)
    left, right = bytes(12) + account_bytes(anna.account), number_word(1000)
    activate_root(testnet, keccak256(left + right), 1000)
    assert anna.claimable(anna.account, 1000, ()) == 0
    with pytest.raises(ChainRefused, match="pool: wrong proof"):
        anna.claim(anna.account, 1000, ())


def test_a_thousand_accounts_in_one_root(testnet: ControlledTestnet) -> None:
    accounts = [address_of(number.to_bytes(20, "big")) for number in range(0x10000, 0x10000 + 1000)]
    tree = SettlementTree((account, 1000 + place) for place, account in enumerate(accounts))
    owner = testnet.chain("owner")
    done(owner, owner.fund(tree.total))
    activate_root(testnet, tree.root, tree.total)
    for account in accounts[::111]:
        assert (
            int(call_as(testnet, account, tree.totals[account], tree.proof(account)), 16)
            == tree.totals[account]
        )


def test_a_root_pays_no_more_than_its_declared_total(
    testnet: ControlledTestnet,
) -> None:
    """If two of three settlers lie about the sum, later earnings of others stay untouched."""
    fund(testnet, 1000)
    tree = SettlementTree([(dev_account(ANNA), 300), (dev_account(BERT), 700)])
    activate_root(testnet, tree.root, 400)
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
    with pytest.raises(ChainRefused, match="pool: beyond the root's total"):
        bert.claim(bert.account, 700, tree.proof(bert.account))
    assert bert.pool().balance == 700


def test_an_account_that_refuses_money_blocks_no_other(testnet: ControlledTestnet) -> None:
    fund(testnet, 1000)
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    # The precompile is a contract that refuses money.
    done(anna, anna.set_payout(HEARTBEAT_PRECOMPILE))
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    with pytest.raises(ChainRefused, match="pool: payout refuses money"):
        anna.claim(anna.account, 300, tree.proof(anna.account))
    done(bert, bert.claim(bert.account, 700, tree.proof(bert.account)))
    done(anna, anna.set_payout(COLD))
    done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
    assert anna.balance(COLD) == 300


def test_a_proof_for_an_older_root_is_refused(testnet: ControlledTestnet) -> None:
    anna, bert = testnet.client(ANNA, profile="plumise"), testnet.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(testnet, 1000)
    done(anna, anna.register("anna"))
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    done(bert, bert.prove(anna.account, 300, tree.proof(anna.account)))
    assert anna.claimable(anna.account, 0, ()) == 300
    tree = settle(testnet, {ANNA: 200, BERT: 800})
    assert anna.claimable(anna.account, 0, ()) == 0
    with pytest.raises(ChainRefused, match="pool: nothing was proved"):
        anna.claim(anna.account, 0, ())
    done(bert, bert.prove(anna.account, 200, tree.proof(anna.account)))
    done(anna, anna.claim(anna.account, 0, ()))
    assert bert.claimed(anna.account) == 200
    assert bert.pool().balance == 800


def test_only_the_owner_names_settlers_and_the_set_is_valid(testnet: ControlledTestnet) -> None:
    one, two = dev_account(ANNA), dev_account(BERT)
    named = "set_settlers(address[],uint256)"
    with pytest.raises(ChainRefused, match="ownable: not the owner"):
        call_raw(testnet, REWARD_POOL, call_data(named, [one], 1))
    for settlers, needed, reason in (
        ([one], 0, "pool: cannot be reached"),
        ([one], 2, "pool: cannot be reached"),
        ([one, two, one], 2, "pool: settler twice or none"),
    ):
        with pytest.raises(ChainRefused, match=reason):
            call_raw(testnet, REWARD_POOL, call_data(named, settlers, needed), sender="owner")
    call_raw(testnet, REWARD_POOL, call_data(named, [one, two], 2), sender="owner")


def test_a_long_reason_is_truncated_between_two_characters(testnet: ControlledTestnet) -> None:
    anna = testnet.chain(ANNA)
    run = b"r" * 32
    done(anna, anna.create_run(run, b"m" * 32))
    # The reason has 121 bytes; the contract accepts 96.
    done(anna, anna.cancel_run(run, "x" + "\u00fc" * 60))
    assert anna.run(run, anna.account).state == "cancelled"
